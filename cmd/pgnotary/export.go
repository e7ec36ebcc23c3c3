package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/export"
	"github.com/pgnotary/pgnotary/internal/query"
)

func newExportCmd() *cobra.Command {
	var (
		what        selection
		format, out string
	)
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write recorded statements for other programs",
		Long: `Export writes what search finds, as records for other programs, oldest first.
Each has the origin of the log and the index of its entry: with those, and
pgnotary prove, any copy of a record can be traced to its proof.

  jsonl  the objects of search --json, with the origin in front
  csv    one row a statement, for spreadsheets; texts that would be taken for a
         formula have an apostrophe in front
  ocsf   events of the Open Cybersecurity Schema Framework 1.8: Datastore Activity
         (6005), Authentication (3002), and Base Events of the proxy itself`,
		Example: `  pgnotary export --data ./pgnotary-data --format csv --since 24h -o yesterday.csv
  pgnotary export --data ./pgnotary-data --format ocsf --kind auth,disconnect | gzip >logins.jsonl.gz`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if _, err := export.NewFormat(format, "", ""); err != nil {
				return fmt.Errorf("--format: %w", err)
			}
			w := cmd.OutOrStdout()
			if out != "" {
				f, openErr := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // it holds what the log holds
				if openErr != nil {
					return openErr
				}
				defer func() {
					if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
						_ = os.Remove(out) // a part is not taken for the whole, and is not in the way next time
					}
				}()
				w = f
			}
			e := &exporter{name: format, out: w, w: bufio.NewWriterSize(w, 64<<10)}
			err = what.run(cmd, false, e)
			if failed := e.w.Flush(); err == nil { // else it may be the same again
				err = failed
			}
			return err
		},
	}
	what.register(cmd)
	what.registerAll(cmd)
	cmd.Flags().StringVar(&format, "format", "jsonl", "`FORMAT`: "+strings.Join(export.Formats(), ", "))
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE` to write, which must not exist (default standard output)")
	return cmd
}

// An exporter writes records.
type exporter struct {
	name   string
	format export.Format
	out    io.Writer // behind w
	w      *bufio.Writer
	buf    []byte
}

func (e *exporter) begin(origin string) (err error) {
	if e.format, err = export.NewFormat(e.name, origin, version()); err != nil {
		return err
	}
	_, err = e.w.Write(e.format.Header())
	return err
}

func (e *exporter) render() func(dst []byte, s *query.Statement) ([]byte, error) {
	if !export.Concurrent(e.format) {
		return nil
	}
	return e.format.Append
}

func (e *exporter) statement(s *query.Statement) (err error) {
	if e.buf, err = e.format.Append(e.buf[:0], s); err != nil {
		return err
	}
	return e.write(e.buf)
}

func (e *exporter) write(b []byte) error {
	_, err := e.w.Write(forTerminal(e.out, b))
	return err
}

func (e *exporter) object(object []byte) error { return decoded(e.statement)(object) }

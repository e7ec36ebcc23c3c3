package query

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgvalue"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
)

// UnmarshalJSON sets s to what AppendJSON wrote, so that AppendJSON writes the
// same again. Keys it does not know are ignored: they come from a newer program.
func (s *Statement) UnmarshalJSON(b []byte) error {
	var j statementJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("read statement: %w", err)
	}
	*s = Statement{
		Index: j.Index, User: j.User, Database: j.Database, Application: j.Application, Client: j.Client,
		Kind: j.Kind, Malformed: j.Malformed, Unavailable: j.Unavailable, TooLarge: j.TooLarge, Executes: j.Executes, Prepared: j.Prepared, Portal: j.Portal,
		MaxRows: j.MaxRows, Request: j.Request, Notice: j.Notice.message(), Error: j.Error.message(), Raw: j.Raw, Rows: j.Rows,
	}
	at, err := time.Parse(time.RFC3339Nano, j.Time)
	if err != nil || at.Year() < 1970 || at.Year() > 2261 {
		return fmt.Errorf("read statement: time %.40q", j.Time)
	}
	s.Time = at.UnixNano()
	if j.Session != "" {
		if s.Session, err = strconv.ParseUint(j.Session, 16, 64); err != nil {
			return fmt.Errorf("read statement: session %.40q", j.Session)
		}
	}
	if j.Statement != nil {
		s.Text, s.HasText = *j.Statement, true
	}
	if j.Function != nil {
		s.Function = &Function{OID: j.Function.OID, Name: j.Function.Name}
	}
	for i := range j.Params {
		p, err := j.Params[i].param()
		if err != nil {
			return fmt.Errorf("read statement: $%d: %w", i+1, err)
		}
		s.Params = append(s.Params, p)
	}
	if j.Protocol != "" {
		if s.Version, err = parseVersion(j.Protocol); err != nil {
			return fmt.Errorf("read statement: %w", err)
		}
	}
	for _, p := range j.Settings {
		s.Settings = append(s.Settings, Setting{Name: p.key, Value: p.value})
	}
	s.Facts = j.Facts.facts()
	if j.Of != nil {
		s.Of = event.Ref(*j.Of)
	}
	if j.Messages != nil {
		s.Copy = &Copy{Messages: *j.Messages, Bytes: j.Bytes}
		if j.SHA256 != "" {
			if s.Copy.SHA256, err = hex.DecodeString(j.SHA256); err != nil {
				return fmt.Errorf("read statement: SHA-256: %w", err)
			}
		}
	}
	if n := j.Notification; n != nil {
		s.Notify = &Notification{PID: n.PID, Channel: n.Channel, Payload: n.Payload}
	}
	if s.Outcome, err = j.Outcome.outcome(); err != nil {
		return fmt.Errorf("read statement: result: %w", err)
	}
	if j.SQL != nil && s.HasText {
		s.sql = newAnalysis(*j.SQL.info())
	}
	return nil
}

type sqlJSON struct {
	Engine      string          `json:"engine"`
	Classes     []sqlinfo.Class `json:"class"`
	Relations   []string        `json:"relations"`
	Fingerprint string          `json:"fingerprint"`
	Complete    *bool           `json:"complete"`
}

func (j *sqlJSON) info() *sqlinfo.Info {
	info := &sqlinfo.Info{Engine: j.Engine, Classes: j.Classes, Relations: j.Relations, Fingerprint: j.Fingerprint, Complete: j.Complete == nil || *j.Complete}
	if len(info.Classes) == 1 && info.Classes[0] == Unknown {
		info.Classes = nil
	}
	return info
}

// statementJSON has the keys of AppendJSON.
type statementJSON struct {
	Index       int64      `json:"index"`
	Time        string     `json:"time"`
	Session     string     `json:"session"`
	User        string     `json:"user"`
	Database    string     `json:"database"`
	Application string     `json:"application"`
	Client      string     `json:"client"`
	Kind        event.Kind `json:"kind"`
	Statement   *string    `json:"statement"`
	Function    *struct {
		OID  uint32 `json:"oid"`
		Name string `json:"name"`
	} `json:"function"`
	Params       []paramJSON  `json:"params"`
	SQL          *sqlJSON     `json:"sql"`
	Malformed    bool         `json:"malformed"`
	Unavailable  bool         `json:"unavailable"`
	TooLarge     bool         `json:"too_large"`
	Executes     string       `json:"executes"`
	Prepared     string       `json:"prepared"`
	Portal       string       `json:"portal"`
	MaxRows      int32        `json:"max_rows"`
	Protocol     string       `json:"protocol"`
	Settings     pairs        `json:"parameters"`
	Of           *int64       `json:"of"`
	Facts        pairs        `json:"facts"`
	Messages     *int64       `json:"messages"`
	Bytes        int64        `json:"bytes"`
	SHA256       string       `json:"sha256"`
	Request      string       `json:"request"`
	Notice       *messageJSON `json:"notice"`
	Notification *struct {
		PID     uint32 `json:"pid"`
		Channel string `json:"channel"`
		Payload string `json:"payload"`
	} `json:"notification"`
	Error   *messageJSON `json:"error"`
	Rows    [][]*string  `json:"rows"`
	Raw     []byte       `json:"raw"`
	Outcome *outcomeJSON `json:"outcome"`
}

type paramJSON struct {
	Type   string  `json:"type"`
	Format string  `json:"format"`
	Value  *string `json:"value"`
	Raw    []byte  `json:"raw"`
}

func (j *paramJSON) param() (p Param, err error) {
	p = Param{Null: j.Value == nil, Raw: j.Raw, shown: j.Value}
	if j.Type != "" {
		oid, ok := pgvalue.TypeOID(j.Type)
		if !ok {
			return p, fmt.Errorf("type %.80q", j.Type)
		}
		p.OID = oid
	}
	switch j.Format {
	case "text":
	case "binary":
		p.Format = 1
	default:
		n, err := strconv.ParseInt(j.Format, 10, 16)
		if err != nil {
			return p, fmt.Errorf("format %.80q", j.Format)
		}
		p.Format = int16(n)
	}
	return p, nil
}

type outcomeJSON struct {
	Index     int64        `json:"index"`
	Tag       *string      `json:"tag"`
	Tags      []string     `json:"tags"`
	Rows      int64        `json:"rows"`
	Bytes     int64        `json:"bytes"`
	Micros    int64        `json:"duration_us"`
	Tx        string       `json:"tx"`
	Committed *bool        `json:"committed"`
	Skipped   bool         `json:"skipped"`
	Suspended bool         `json:"suspended"`
	Discarded bool         `json:"discarded"`
	Result    *paramJSON   `json:"result"`
	Facts     pairs        `json:"facts"`
	Error     *messageJSON `json:"error"`
}

func (j *outcomeJSON) outcome() (*Outcome, error) {
	if j == nil {
		return nil, nil
	}
	o := &Outcome{
		Index: j.Index, Tags: j.Tags, Rows: j.Rows, Bytes: j.Bytes, Micros: j.Micros, Skipped: j.Skipped,
		Suspended: j.Suspended, Discarded: j.Discarded, Facts: j.Facts.facts(), Error: j.Error.message(),
	}
	if j.Tag != nil {
		o.Tags = []string{*j.Tag}
	}
	if len(j.Tx) == 1 {
		o.Tx = j.Tx[0]
	}
	if j.Committed != nil {
		o.Committed = -1
		if *j.Committed {
			o.Committed = 1
		}
	}
	if j.Result != nil {
		p, err := j.Result.param()
		if err != nil {
			return nil, err
		}
		o.Result = &p
	}
	return o, nil
}

type messageJSON struct {
	SQLState         string `json:"sqlstate"`
	Message          string `json:"message"`
	Severity         string `json:"severity"`
	Detail           string `json:"detail"`
	Hint             string `json:"hint"`
	Position         string `json:"position"`
	InternalPosition string `json:"internal_position"`
	InternalQuery    string `json:"internal_query"`
	Where            string `json:"where"`
	Schema           string `json:"schema"`
	Table            string `json:"table"`
	Column           string `json:"column"`
	DataType         string `json:"data_type"`
	Constraint       string `json:"constraint"`
	Routine          string `json:"routine"`
}

func (j *messageJSON) message() *ServerMessage {
	if j == nil {
		return nil
	}
	return &ServerMessage{
		Severity: j.Severity, SQLState: j.SQLState, Message: j.Message, Detail: j.Detail, Hint: j.Hint, Position: j.Position,
		InternalPosition: j.InternalPosition, InternalQuery: j.InternalQuery, Where: j.Where,
		Schema: j.Schema, Table: j.Table, Column: j.Column, DataType: j.DataType, Constraint: j.Constraint, Routine: j.Routine,
	}
}

// pairs are the keys and strings of an object in the order they stand, the
// same key perhaps twice.
type pairs []struct{ key, value string }

func (p *pairs) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("no object of strings")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var value string
		if err := d.Decode(&value); err != nil {
			return err
		}
		name, _ := key.(string) // keys are strings
		*p = append(*p, struct{ key, value string }{name, value})
	}
	return nil
}

func (p pairs) facts() (out []event.Fact) {
	for _, f := range p {
		out = append(out, event.Fact{Key: f.key, Val: f.value})
	}
	return out
}

// parseVersion reads a protocol version such as 3.0.
func parseVersion(s string) (uint32, error) {
	major, minor, _ := strings.Cut(s, ".")
	a, errA := strconv.ParseUint(major, 10, 16)
	b, errB := strconv.ParseUint(minor, 10, 16)
	if errA != nil || errB != nil {
		return 0, fmt.Errorf("protocol %.40q", s)
	}
	return uint32(a<<16 | b), nil
}

//go:build unix && !linux

package durable

func (osFS) OpenDirect(string) (File, error) { return nil, ErrNoDirect }

func (f osFile) Datasync() error      { return f.Sync() }
func (f osFile) Writeback(_, _ int64) {}

func setImmutable(string, bool) {}

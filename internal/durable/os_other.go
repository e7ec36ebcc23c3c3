//go:build unix && !linux

package durable

func (f osFile) Datasync() error      { return f.Sync() }
func (f osFile) Writeback(_, _ int64) {}

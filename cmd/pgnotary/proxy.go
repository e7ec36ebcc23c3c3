package main

import (
	"context"
	"errors"
	"io"
)

func serve(ctx context.Context, s *settings, stderr io.Writer) error {
	newLogger(stderr, &s.Config)
	return errors.ErrUnsupported
}

package relay

import "github.com/pgnotary/pgnotary/internal/session"

func idle(s *session.Session) bool {
	i, ok := any(s).(interface{ Idle() bool })
	return ok && i.Idle()
}

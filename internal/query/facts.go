package query

// FactsOnly returns of s what its leaves say: who, when, from where, what kind
// of statement, how long it took and how it ended; nothing of its text, its
// parameters, what a function returned or the messages about it, which are values. It is for readers who
// may see entries but no values. What is not named here is left out.
func (s *Statement) FactsOnly() *Statement {
	f := &Statement{
		Index: s.Index, Time: s.Time, Session: s.Session,
		User: s.User, Database: s.Database, Application: s.Application, Client: s.Client,
		Kind: s.Kind, Facts: s.Facts, Of: s.Of, TooLarge: s.TooLarge,
	}
	if s.Copy != nil {
		f.Copy = &Copy{Messages: s.Copy.Messages, Bytes: s.Copy.Bytes}
	}
	if s.Error != nil {
		f.Error = s.Error.factsOnly()
	}
	if o := s.Outcome; o != nil {
		c := *o
		c.Result = nil
		if o.Error != nil {
			c.Error = o.Error.factsOnly()
		}
		f.Outcome = &c
	}
	return f
}

func (m *ServerMessage) factsOnly() *ServerMessage { return &ServerMessage{SQLState: m.SQLState} }

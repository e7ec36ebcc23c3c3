package export

import (
	"bytes"
	"encoding/json"
	"net"
	"strconv"
	"strings"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
)

// ocsf makes events of the Open Cybersecurity Schema Framework: statements,
// COPY data and connections are Datastore Activity (6005), logins and ends of
// sessions Authentication (3002), and what the proxy says of itself a Base
// Event (0). Nothing is left out for want of a class.
type ocsf struct {
	origin, version string
	who             map[uint64]who // of open sessions: their ends do not say
}

type who struct{ user, client string }

// maxWho bounds the sessions that are remembered.
const maxWho = 1 << 16

// ocsfVersion is the version of the schema that events are made for.
const ocsfVersion = "1.8.0"

// Classes and activities of the schema.
const (
	classBase           = 0
	classAuthentication = 3002
	classDatastore      = 6005

	activityLogon   = 1
	activityLogoff  = 2
	activityRead    = 1
	activityUpdate  = 2
	activityConnect = 3
	activityQuery   = 4
	activityWrite   = 5
	activityCreate  = 6
	activityDelete  = 7
	activityOther   = 99
)

type ocsfEvent struct {
	ActivityID   int         `json:"activity_id"`
	ActivityName string      `json:"activity_name,omitempty"`
	CategoryUID  int         `json:"category_uid"`
	ClassUID     int         `json:"class_uid"`
	TypeUID      int         `json:"type_uid"`
	Time         int64       `json:"time"` // Unix milliseconds
	SeverityID   int         `json:"severity_id"`
	StatusID     *int        `json:"status_id,omitempty"`
	StatusCode   string      `json:"status_code,omitempty"`
	StatusDetail string      `json:"status_detail,omitempty"`
	Message      string      `json:"message,omitempty"`
	Metadata     metadata    `json:"metadata"`
	Actor        *actor      `json:"actor,omitempty"`
	User         *named      `json:"user,omitempty"`
	Session      *session    `json:"session,omitempty"`
	Source       *endpoint   `json:"src_endpoint,omitempty"`
	Service      *named      `json:"service,omitempty"`
	AuthProtocol string      `json:"auth_protocol,omitempty"`
	AuthID       int         `json:"auth_protocol_id,omitempty"`
	IsRemote     *bool       `json:"is_remote,omitempty"`
	Database     *database   `json:"database,omitempty"`
	Table        *named      `json:"table,omitempty"`
	TypeID       int         `json:"type_id,omitempty"` // of the datastore
	Query        *queryInfo  `json:"query_info,omitempty"`
	Unmapped     ocsfDetails `json:"unmapped"`
}

type metadata struct {
	Version          string  `json:"version"`
	Product          product `json:"product"`
	UID              string  `json:"uid"`
	LogName          string  `json:"log_name"` // the origin
	OriginalEventUID string  `json:"original_event_uid"`
	EventCode        string  `json:"event_code"`
}

type product struct {
	Name    string `json:"name"`
	Vendor  string `json:"vendor_name"`
	Version string `json:"version,omitempty"`
}

type actor struct {
	User    *named   `json:"user,omitempty"`
	Session *session `json:"session,omitempty"`
	App     string   `json:"app_name,omitempty"`
}

type named struct {
	Name string `json:"name"`
}

type session struct {
	UID string `json:"uid"`
}

type endpoint struct {
	IP   string `json:"ip,omitempty"`
	Port int    `json:"port,omitempty"`
	Name string `json:"name,omitempty"`
}

type database struct {
	Name   string `json:"name"`
	TypeID int    `json:"type_id"`
}

type queryInfo struct {
	UID    string `json:"uid"`
	String string `json:"query_string"`
	Bytes  int64  `json:"bytes,omitempty"` // of the rows that came back
}

// ocsfDetails are what the schema has no place for, and origin and index once
// more, under the names they have everywhere else.
type ocsfDetails struct {
	Origin       string            `json:"origin"`
	Index        int64             `json:"index"`
	OutcomeIndex *int64            `json:"outcome_index,omitempty"`
	Params       []*string         `json:"params,omitempty"`
	Tags         []string          `json:"tags,omitempty"`
	Rows         int64             `json:"rows,omitempty"`
	DurationUS   *int64            `json:"duration_us,omitempty"`
	Committed    *bool             `json:"committed,omitempty"`
	Classes      []sqlinfo.Class   `json:"class,omitempty"`
	Relations    []string          `json:"relations,omitempty"`
	Fingerprint  string            `json:"fingerprint,omitempty"`
	Facts        map[string]string `json:"facts,omitempty"`
	Request      string            `json:"request,omitempty"`
}

func (*ocsf) Header() []byte { return nil }

func (f *ocsf) Append(dst []byte, s *query.Statement) ([]byte, error) {
	switch {
	case s.Kind == event.KindDisconnect:
		if w, ok := f.who[s.Session]; ok {
			c := *s
			c.User, c.Client = w.user, w.client
			s = &c
			delete(f.who, s.Session)
		}
	case s.Session != 0 && s.User != "":
		if f.who == nil || len(f.who) >= maxWho {
			f.who = make(map[uint64]who)
		}
		f.who[s.Session] = who{s.User, s.Client}
	}
	e := ocsfEvent{
		Time: s.Time / 1e6, SeverityID: 1,
		Metadata: metadata{
			Version: ocsfVersion, Product: product{"pgnotary", "pgnotary", f.version},
			UID: f.origin + "#" + number(s.Index), LogName: f.origin, OriginalEventUID: number(s.Index), EventCode: string(s.Kind),
		},
		Unmapped: f.details(s),
	}
	switch s.Kind {
	case event.KindQuery, event.KindParse, event.KindBind, event.KindExecute, event.KindFunctionCall, event.KindCopy, event.KindConnect, event.KindReplication:
		e.datastore(s)
	case event.KindAuth, event.KindDisconnect:
		e.authentication(s)
	default:
		e.base(s)
	}
	e.TypeUID = e.ClassUID*100 + e.ActivityID
	if m := message(s); m != nil {
		e.StatusCode, e.StatusDetail = m.SQLState, m.Message
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(e)
	return append(dst, b.Bytes()...), err
}

func (f *ocsf) details(s *query.Statement) ocsfDetails {
	d := ocsfDetails{Origin: f.origin, Index: s.Index, Request: s.Request}
	if len(s.Params) > 0 {
		d.Params = paramTexts(s)
	}
	if info := s.SQL(); info != nil {
		d.Classes, d.Relations, d.Fingerprint = info.Classes, info.Relations, info.Fingerprint
	}
	if o := s.Outcome; o != nil {
		d.OutcomeIndex, d.Tags, d.Rows = &o.Index, o.Tags, o.Rows
		if us, ok := s.Duration(); ok {
			d.DurationUS = &us
		}
		if o.Committed != 0 {
			committed := o.Committed > 0
			d.Committed = &committed
		}
	}
	for _, x := range s.Facts {
		if d.Facts == nil {
			d.Facts = make(map[string]string)
		}
		d.Facts[x.Key] = x.Val
	}
	return d
}

// datastore fills in a Datastore Activity.
func (e *ocsfEvent) datastore(s *query.Statement) {
	e.CategoryUID, e.ClassUID, e.TypeID = 6, classDatastore, 1
	e.ActivityID, e.ActivityName = activity(s)
	e.Actor, e.Source = actorOf(s), endpointOf(s.Client)
	e.Database = &database{Name: orUnknown(s.Database), TypeID: 1}
	e.status(s)
	info := s.SQL()
	if info != nil && len(info.Relations) == 1 {
		e.Table = &named{info.Relations[0]}
	}
	if s.HasText {
		e.Query = &queryInfo{UID: info.Fingerprint, String: s.Text}
		if info.Fingerprint == "" {
			e.Query.UID = number(s.Index)
		}
		if s.Outcome != nil {
			e.Query.Bytes = s.Outcome.Bytes
		}
	}
}

// status says whether a statement succeeded: 1 yes, 2 no, 0 not known.
func (e *ocsfEvent) status(s *query.Statement) {
	id := 0
	switch o := s.Outcome; {
	case s.SQLState() != "":
		id = 2
		e.SeverityID = 2
	case s.Kind == event.KindConnect || s.Kind == event.KindCopy || s.Kind == event.KindDisconnect:
		id = 1
	case o != nil && !o.Skipped && !o.Discarded:
		id = 1
	}
	e.StatusID = &id
}

// activity returns what a statement does, and its name where the schema has none.
func activity(s *query.Statement) (id int, name string) {
	switch s.Kind {
	case event.KindConnect:
		return activityConnect, ""
	case event.KindCopy, event.KindReplication:
		for _, f := range s.Facts {
			if f.Key == "direction" && f.Val == "in" {
				return activityWrite, ""
			}
		}
		return activityRead, ""
	}
	words := strings.Fields(s.Text)
	if s.Outcome != nil && len(s.Outcome.Tags) > 0 {
		words = strings.Fields(s.Outcome.Tags[len(s.Outcome.Tags)-1])
	}
	if len(words) == 0 {
		return activityOther, string(s.Kind)
	}
	switch strings.ToUpper(words[0]) {
	case "SELECT", "VALUES", "TABLE", "FETCH":
		return activityQuery, ""
	case "INSERT", "MERGE":
		return activityWrite, ""
	case "UPDATE", "ALTER":
		return activityUpdate, ""
	case "DELETE", "TRUNCATE", "DROP":
		return activityDelete, ""
	case "CREATE":
		return activityCreate, ""
	case "COPY":
		if info := s.SQL(); info != nil && len(info.Classes) > 0 && info.Classes[0] == sqlinfo.Read {
			return activityRead, ""
		}
		return activityWrite, ""
	case "WITH":
		return activityQuery, ""
	}
	return activityOther, strings.ToUpper(words[0])
}

// authentication fills in the event of a login or of a session's end.
func (e *ocsfEvent) authentication(s *query.Statement) {
	e.CategoryUID, e.ClassUID, e.ActivityID = 3, classAuthentication, activityLogoff
	e.User = &named{orUnknown(s.User)}
	e.Source, e.Service = endpointOf(s.Client), &named{"postgresql"}
	if s.Session != 0 {
		e.Session = &session{string(event.AppendSession(nil, s.Session))}
	}
	remote := e.Source.IP != "" && !net.ParseIP(e.Source.IP).IsLoopback()
	e.IsRemote = &remote
	e.status(s)
	if s.Kind == event.KindDisconnect {
		return
	}
	e.ActivityID = activityLogon
	facts := make(map[string]string)
	for _, f := range s.Facts {
		facts[f.Key] = f.Val
	}
	if e.AuthProtocol = facts["mechanism"]; e.AuthProtocol == "" {
		e.AuthProtocol = facts["method"]
	}
	if e.AuthProtocol != "" {
		e.AuthID = 99
	}
	id := 0
	switch facts["result"] {
	case "ok":
		id = 1
	case "failed", "refused":
		id, e.SeverityID = 2, 3
	}
	e.StatusID = &id
}

// base fills in an event of the proxy itself.
func (e *ocsfEvent) base(s *query.Statement) {
	e.ActivityID, e.ActivityName = activityOther, string(s.Kind)
	e.Message = "pgnotary: " + string(s.Kind)
	switch s.Kind {
	case event.KindViolation, event.KindGap, event.KindErase, event.KindPrune:
		e.SeverityID = 4
	case event.KindRecover:
		e.SeverityID = 3
	}
}

func actorOf(s *query.Statement) *actor {
	a := &actor{User: &named{orUnknown(s.User)}, App: s.Application}
	if s.Session != 0 {
		a.Session = &session{string(event.AppendSession(nil, s.Session))}
	}
	return a
}

// endpointOf reads an address as entries have it: host:port, or unix.
func endpointOf(client string) *endpoint {
	host, port, err := net.SplitHostPort(client)
	if err != nil || net.ParseIP(host) == nil {
		return &endpoint{Name: orUnknown(client)}
	}
	n, _ := strconv.Atoi(port) // what is no number is left out
	return &endpoint{IP: host, Port: n}
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

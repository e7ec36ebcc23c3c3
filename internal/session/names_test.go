package session

import (
	"strings"
	"testing"
)

// Servers know a name by its first 63 bytes, after they have converted it to their encoding.
func TestLongNames(t *testing.T) {
	n := strings.Repeat("n", 63)
	runDialogues(t, []dialogueTest{
		{"statement", []step{
			client(parse(n+"a", "harmless"), syncMsg()),
			server(parsed(), ready('I')),
			client(closing('S', n+"b"), syncMsg()),
			server(closed(), ready('I')),
			client(parse(n+"c", "evil"), syncMsg()),
			server(parsed(), ready('I')),
			client(bind("", n+"a"), execute("", 0), syncMsg()),
		}, []string{
			`parse PS`,
			`outcome 1Z of=2 tx=I committed=true`,
			`parse CSPS`,
			`outcome 3Z1Z of=4 tx=I committed=true`,
			`execute BES parse=4`,
		}},
		{"portal", []step{
			client(query("begin"), parse("", "evil"), bind(n+"b", ""), syncMsg()),
			server(tag("BEGIN"), ready('T'), parsed(), bound(), ready('T')),
			client(execute(n+"a", 0), closing('P', n), parse(n+"d", "x"), bind(n+"e", n+"f"), execute(n+"g", 0), syncMsg()),
		}, []string{
			`query Q`,
			`bind PBS`,
			`outcome CZ of=2 ["BEGIN"] tx=T`,
			`outcome 12Z of=3 tx=T`,
			`execute EC parse=3 bind=3`,
			`execute PBES`,
		}},
		{"other than ASCII", []step{
			client(parse("\u00e9", "one"), bind("\u00e8", "\u00e9"), syncMsg(), execute("\u00e8", 0), bind("", "\u00e9"), execute("", 0), syncMsg()),
		}, []string{
			`bind PBS`,
			`execute E parse=2 bind=2 portal:uncertain`,
			`execute BES parse=2 statement:uncertain`,
		}},
	})
}

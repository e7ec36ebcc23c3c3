package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	gosync "sync"
	"testing"
	"time"
)

// A tap stands between pgnotary and its server and writes down what passes, as a capture of packets that
// other programs can read. A capture of the network's own would need rights and lose packets under load.
type tap struct {
	addr     string
	file     string
	listener net.Listener
	upstream string
	wg       gosync.WaitGroup

	mu   gosync.Mutex
	w    *bufio.Writer
	n    int   // connections so far
	werr error // of writing the capture
}

// tapPort is the server's port in the capture.
const tapPort = 5432

// startTap listens in front of a server.
func startTap(t *testing.T, upstream string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "*.pcap")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{addr: l.Addr().String(), file: f.Name(), listener: l, upstream: upstream, w: bufio.NewWriter(f)}
	// The header of the classic format; link type 101: packets begin with their IP header.
	p.write(binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4), []byte{2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0})
	go p.accept()
	t.Cleanup(func() { l.Close(); f.Close() })
	return p
}

func (p *tap) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			p.serve(c.(*net.TCPConn))
		}()
	}
}

// serve passes a connection on, each direction until it ends.
func (p *tap) serve(client *net.TCPConn) {
	defer client.Close()
	up, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return
	}
	server := up.(*net.TCPConn)
	defer server.Close()
	p.mu.Lock()
	p.n++
	c := &tapped{tap: p, number: p.n}
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		c.pump(server, client, true)
		close(done)
	}()
	c.pump(client, server, false)
	<-done
}

// A tapped is a connection through a tap; its numbers belong to the tap's mutex.
type tapped struct {
	tap    *tap
	number int
	sent   [2]uint32 // bytes of the client, of the server
}

// pump passes one direction on. What a peer does not take any more was sent all the same.
func (c *tapped) pump(to, from *net.TCPConn, fromClient bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			c.tap.mu.Lock()
			c.packet(buf[:n], fromClient)
			c.tap.mu.Unlock()
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			_ = to.CloseWrite()
			return
		}
	}
}

// packet writes bytes as one TCP segment.
func (c *tapped) packet(b []byte, fromClient bool) {
	client := []byte{10, 0, byte(c.number >> 8), byte(c.number)}
	server := []byte{10, 1, 0, 1}
	from, to, ports, side := client, server, [2]uint16{uint16(10000 + c.number%50000), tapPort}, 0
	if !fromClient {
		from, to, ports, side = server, client, [2]uint16{ports[1], ports[0]}, 1
	}
	total := 20 + 20 + len(b)
	ip := []byte{0x45, 0, byte(total >> 8), byte(total), 0, 0, 0x40, 0, 64, 6, 0, 0}
	ip = append(append(ip, from...), to...)
	tcp := binary.BigEndian.AppendUint16(nil, ports[0])
	tcp = binary.BigEndian.AppendUint16(tcp, ports[1])
	tcp = binary.BigEndian.AppendUint32(tcp, 1+c.sent[side])
	tcp = binary.BigEndian.AppendUint32(tcp, 1+c.sent[1-side])
	tcp = append(tcp, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0)
	c.sent[side] += uint32(len(b))
	head := binary.LittleEndian.AppendUint32(make([]byte, 8), uint32(total))
	head = binary.LittleEndian.AppendUint32(head, uint32(total))
	c.tap.write(head, ip, tcp, b)
}

func (p *tap) write(parts ...[]byte) {
	for _, b := range parts {
		if _, err := p.w.Write(b); err != nil && p.werr == nil {
			p.werr = err
		}
	}
}

// finish waits for the connections to end and completes the capture.
func (p *tap) finish(t *testing.T) {
	t.Helper()
	p.listener.Close()
	done := make(chan struct{})
	go func() { p.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("connections to the server are still open")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.w.Flush(); err != nil || p.werr != nil {
		t.Fatalf("write the capture: %v, %v", err, p.werr)
	}
}

// A stream is what tshark says went over one connection to the server.
type stream struct {
	frontend string   // letters of the client's messages; a run of d is one
	backend  string   // letters of the server's; a run of d or D is one
	texts    []string // of Query and Parse, as tshark prints them
	values   []string // of Bind and FunctionCall, in hexadecimal; "NULL"

	client    string // recorded: its application_name
	malformed bool   // recorded: a message could not be read to its end
}

// letterOf maps tshark's names of messages, the client's and the server's.
var letterOf = [2]map[string]byte{
	{
		"Startup message": '0', "Cancel request": 'x', "Simple query": 'Q', "Parse": 'P', "Bind": 'B', "Describe": 'D', "Execute": 'E',
		"Close": 'C', "Flush": 'H', "Sync": 'S', "Function call": 'F', "Copy data": 'd', "Copy completion": 'c', "Copy failure": 'f', "Termination": 'X',
		"Unknown": '0', // StartupMessage of a version that it does not know
	},
	{
		"Parse completion": '1', "Bind completion": '2', "Close completion": '3', "Notification": 'A', "Command completion": 'C', "Copy data": 'd',
		"Copy completion": 'c', "Data row": 'D', "Error": 'E', "CopyIn response": 'G', "CopyOut response": 'H', "Empty query": 'I', "Backend key data": 'K',
		"No data": 'n', "Notice": 'N', "Authentication request": 'R', "Parameter status": 'S', "Portal suspended": 's', "Row description": 'T',
		"Parameter description": 't', "Negotiate protocol version": 'v', "Function call response": 'V', "Ready for query": 'Z',
		"Unknown": 'W', // CopyBothResponse, which that version does not know
	},
}

// decode has tshark decode the capture. counts has the messages of each letter, 0 of clients, 1 of servers.
func (p *tap) decode(t *testing.T) (all []*stream, counts [2]map[byte]int) {
	t.Helper()
	const field, item = "\x1e", "\x1f"
	cmd := exec.CommandContext(t.Context(), "tshark", "-r", p.file, "-d", fmt.Sprintf("tcp.port==%d,pgsql", tapPort), "-Y", "pgsql", "-T", "fields",
		"-E", "separator="+field, "-E", "aggregator="+item, "-e", "tcp.stream", "-e", "tcp.srcport", "-e", "pgsql.type", "-e", "pgsql.query",
		"-e", "pgsql.val.length", "-e", "pgsql.val.data")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	counts = [2]map[byte]int{{}, {}}
	byNumber := map[string]*stream{}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), field)
		if len(f) != 6 {
			t.Fatalf("tshark printed %.200q", line)
		}
		s := byNumber[f[0]]
		if s == nil {
			s = &stream{}
			byNumber[f[0]] = s
			all = append(all, s)
		}
		side := 0
		if f[1] == strconv.Itoa(tapPort) {
			side = 1
		}
		for _, name := range strings.Split(f[2], item) {
			letter, ok := letterOf[side][name]
			if !ok {
				t.Fatalf("tshark names a message %q", name)
			}
			counts[side][letter]++
			s.add(side, letter)
		}
		if side == 1 {
			continue
		}
		if f[3] != "" {
			s.texts = append(s.texts, slices.DeleteFunc(strings.Split(f[3], item), func(text string) bool { return text == "" })...)
		}
		s.addValues(strings.Split(f[4], item), strings.Split(f[5], item))
	}
	return all, counts
}

func (s *stream) add(side int, letter byte) {
	to := &s.frontend
	if side == 1 {
		to = &s.backend
	}
	if n := len(*to); n > 0 && (*to)[n-1] == letter && (letter == 'd' || letter == 'D') {
		return
	}
	*to += string(letter)
}

// addValues brings the lengths of values together with the bytes of those that have any.
func (s *stream) addValues(lengths, data []string) {
	for _, l := range lengths {
		switch l {
		case "":
		case "-1":
			s.values = append(s.values, "NULL")
		case "0":
			s.values = append(s.values, "")
		default:
			if len(data) > 0 {
				s.values, data = append(s.values, data[0]), data[1:]
			}
		}
	}
}

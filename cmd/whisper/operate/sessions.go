package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/ops"
)

// Sessions is `whisper sessions`: it lists the open sockets of the gateways.
type Sessions struct {
	User  string         `placeholder:"ID" help:"Only sessions of this user."`
	Node  []string       `placeholder:"NAME" help:"Only sessions on these gateways."`
	Limit int            `default:"1000" zero:"all" placeholder:"N" help:"List at most this many (default ${default}; 0: all)."`
	At    []string       `placeholder:"URL" help:"Ask these operations ports instead of those in whisper.nodes: http://127.0.0.1:8081 through a tunnel, for example."`
	JSON  bool           `name:"json" help:"Print one JSON object a line."`
	Kafka cli.KafkaFlags `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *Sessions) Help() string {
	return `Asks the operations port of every gateway for its open sockets. Each gateway publishes the address of that port in
whisper.nodes (--ops-advertise). The exit code is 1 if a gateway did not answer: its sessions are missing from the
list, and the last lines say why. Examples:

    whisper sessions --user mona
    whisper sessions --node eu-1 --limit 0 --json | jq -r .client | sort | uniq -c

To end one: whisper revoke --user mona --session ID`
}

// Check names every problem of these settings.
func (c *Sessions) Check() error {
	errs := []error{c.Kafka.Check()}
	if c.User != "" {
		if err := domain.CheckKnownID(c.User); err != nil {
			errs = append(errs, fmt.Errorf("user: %w", err))
		}
	}
	if c.Limit < 0 {
		errs = append(errs, errors.New("limit: must not be negative: give a number, or 0 for all"))
	}
	for _, at := range c.At {
		errs = append(errs, checkURL("at", at))
	}
	return errors.Join(errs...)
}

// sessionLine is what --json prints.
type sessionLine struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	gateway.SessionLine
}

// opsDoor is where a gateway answers operators.
type opsDoor struct {
	node string // empty: whoever answers there
	url  string
	err  error // why it can't be asked
}

// name is how the door is told of in an error.
func (d opsDoor) name() string {
	switch {
	case d.node == "":
		return d.url
	case d.url == "":
		return "node " + d.node
	default:
		return "node " + d.node + " at " + d.url
	}
}

func (c *Sessions) Run(ctx context.Context, p *cli.Process) error {
	doors, err := c.doors(ctx, p)
	if err != nil {
		return err
	}
	first := c.firstPages(ctx, doors)
	printer := &sessionPrinter{w: p.Stdout, json: c.JSON, left: c.Limit, bounded: c.Limit > 0}
	var failed []error
	for i, door := range doors {
		err := door.err
		if err == nil {
			err = c.rest(ctx, door, first[i], printer)
		}
		if printer.err != nil {
			return printer.err
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", door.name(), err))
		}
	}
	if err := printer.end(); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("the list is not complete:\n%w", errors.Join(failed...))
	}
	return nil
}

// doors are the operations ports to ask, by the nodes' names.
func (c *Sessions) doors(ctx context.Context, p *cli.Process) ([]opsDoor, error) {
	var doors []opsDoor
	for _, at := range c.At {
		doors = append(doors, opsDoor{url: strings.TrimRight(at, "/")})
	}
	if len(doors) > 0 {
		return doors, nil
	}
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return nil, err
	}
	var nodes ops.NodeTable
	if err := (cli.Scan{Client: client, Topics: []string{consumers.TopicNodes}}).Run(ctx, nodes.Fold); err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, l := range nodeLines(&nodes, p.Now()) {
		known[l.Node] = true
		if l.State == ops.NodeGone && !slices.Contains(c.Node, l.Node) || len(c.Node) > 0 && !slices.Contains(c.Node, l.Node) {
			continue
		}
		door := opsDoor{node: l.Node}
		if l.OpsAddr == "" {
			door.err = errors.New("its heartbeat does not say where its operations port is (an older version?): give the address with --at")
		} else if host, port, err := net.SplitHostPort(l.OpsAddr); err != nil || strings.ContainsAny(host, "/?#@\\% ") || !isPort(port) {
			door.err = fmt.Errorf("its heartbeat names %q as its operations port, which is not host:port: give the address with --at", l.OpsAddr)
		} else {
			door.url = "http://" + net.JoinHostPort(host, port)
		}
		doors = append(doors, door)
	}
	for _, name := range c.Node {
		if !known[name] {
			err := errors.New("whisper.nodes does not know it: `whisper nodes --all` lists the nodes that it knows")
			doors = append(doors, opsDoor{node: name, err: err})
		}
	}
	return doors, nil
}

// sessionsAtOnce is how many nodes are asked at the same time: one that does not answer keeps the others waiting less.
const sessionsAtOnce = 16

type pageAnswer struct {
	page gateway.SessionsPage
	err  error
}

func (c *Sessions) firstPages(ctx context.Context, doors []opsDoor) []pageAnswer {
	answers := make([]pageAnswer, len(doors))
	var group errgroup.Group
	group.SetLimit(sessionsAtOnce)
	for i, door := range doors {
		if door.err == nil {
			group.Go(func() error {
				answers[i].page, answers[i].err = c.page(ctx, door, "")
				return nil
			})
		}
	}
	_ = group.Wait()
	return answers
}

// rest prints a node's pages, of which the first is here already.
func (c *Sessions) rest(ctx context.Context, door opsDoor, answer pageAnswer, printer *sessionPrinter) error {
	after := ""
	for answer.err == nil {
		page := answer.page
		printer.print(page)
		if page.Next == "" || printer.full || printer.err != nil {
			break
		}
		if len(page.Sessions) == 0 || page.Next == after {
			return errors.New("it answers with the same page again, so the list would never end")
		}
		after = page.Next
		answer.page, answer.err = c.page(ctx, door, page.Next)
	}
	return answer.err
}

// direct goes through no proxy: the question names a user, and only the node should see it.
var direct = &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: pageTimeout}

// pageTimeout bounds one question to one node.
const pageTimeout = 5 * time.Second

// page asks for one page. It follows no redirect: only the node itself may answer.
func (c *Sessions) page(ctx context.Context, door opsDoor, after string) (page gateway.SessionsPage, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	q := url.Values{"limit": {strconv.Itoa(gateway.MaxSessionsPage)}}
	if c.Limit > 0 && c.Limit < gateway.MaxSessionsPage {
		q.Set("limit", strconv.Itoa(c.Limit))
	}
	if c.User != "" {
		q.Set("user", c.User)
	}
	if after != "" {
		q.Set("after", after)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, door.url+gateway.SessionsPath+"?"+q.Encode(), http.NoBody)
	if err != nil {
		return page, err
	}
	client := http.Client{Transport: direct, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return page, door.explain(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return page, fmt.Errorf("read its answer: %w", err)
	}
	if resp.StatusCode == http.StatusNotFound {
		return page, errors.New("what answers there has no list of sessions: it is not a gateway, or an older version of one")
	}
	if resp.StatusCode != http.StatusOK {
		var told struct {
			Error string `json:"error"`
		}
		_ = json.Unmarshal(body, &told)
		return page, fmt.Errorf("it answers %d: %s", resp.StatusCode, cmp.Or(told.Error, cli.OneLine(string(body[:min(len(body), 200)]))))
	}
	if err := json.Unmarshal(body, &page); err != nil || page.Node == "" {
		return page, errors.New("its answer is not a list of sessions: is this the operations port of a gateway?")
	}
	if door.node != "" && page.Node != door.node {
		return page, fmt.Errorf("node %s answers there: give each gateway its own address with --ops-advertise, or ask with --at",
			page.Node)
	}
	return page, nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// explain says what to do where nobody answers.
func (d opsDoor) explain(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	u, parsed := url.Parse(d.url)
	if parsed == nil && d.node != "" {
		if ip := net.ParseIP(u.Hostname()); ip.IsLoopback() {
			return fmt.Errorf("%w; that address is the node's own machine: "+
				"ask there, or start the gateway with an --ops-addr that can be reached from here", err)
		}
	}
	return fmt.Errorf("its operations port does not answer: %w", err)
}

// sessionPrinter prints pages as they come, so that a hundred thousand sessions need no memory.
type sessionPrinter struct {
	w       io.Writer
	json    bool
	bounded bool
	left    int
	full    bool // there may be more than may be printed
	printed int
	err     error
}

func (s *sessionPrinter) print(page gateway.SessionsPage) {
	rows := page.Sessions
	if s.bounded && len(rows) > s.left {
		rows, s.full = rows[:s.left], true
	}
	if s.left -= len(rows); s.bounded && s.left == 0 && page.Next != "" {
		s.full = true
	}
	if len(rows) == 0 {
		return
	}
	table := tabwriter.NewWriter(s.w, 10, 0, 2, ' ', 0)
	if s.printed == 0 && !s.json {
		_, _ = fmt.Fprintln(table, "NODE\tUSER\tSESSION\tSINCE\tNETWORK\tACK\tUNACKED\tCLIENT")
	}
	for _, l := range rows {
		if s.json {
			s.err = errors.Join(s.err, cli.PrintJSON(s.w, sessionLine{page.Node, page.Incarnation, l}))
			continue
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", page.Node, l.User, l.Session, l.Since.Format("2006-01-02T15:04:05Z"),
			cmp.Or(l.Network, "-"), l.Ack, l.Unacknowledged, cmp.Or(l.Client, "-"))
	}
	s.printed += len(rows)
	if !s.json {
		s.err = errors.Join(s.err, table.Flush())
	}
}

// end says that there is nothing, or that there is more.
func (s *sessionPrinter) end() error {
	var err error
	switch {
	case s.json:
	case s.printed == 0:
		_, err = fmt.Fprintln(s.w, "no sessions")
	case s.full:
		_, err = fmt.Fprintf(s.w, "and more: these are %d; --limit 0 lists all\n", s.printed)
	}
	return err
}

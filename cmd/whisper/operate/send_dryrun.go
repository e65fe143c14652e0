package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/segment"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// rehearsal counts a broadcast's audience from the log alone, without a record written: what dispatch would
// see if it began now. It keeps a byte a user, and the profiles of a few.
type rehearsal struct {
	segment *segment.Segment
	users   map[string]byte // meant, failed, or neither
	// Where those have a socket who do: by user and node, and how many nodes of a user.
	on      map[string]struct{}
	sockets map[string]int
	samples map[string]*whisperv1.Profile
	tmpl    *template.Template
}

const (
	notMeant byte = iota
	meant
	unanswered
)

// samplesKept is among how many users the three that are shown are chosen, so that they differ in their locales.
const samplesKept = 200

// dryRun tells what a broadcast would do.
func (c *Send) dryRun(ctx context.Context, p *cli.Process, req Request) error {
	value, err := json.Marshal(req)
	if err != nil {
		return err
	}
	parsed, err := request.Parse(value, "")
	if err != nil {
		return err
	}
	segment, err := segment.Compile(parsed.Segment)
	if err != nil {
		return err
	}
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	r := &rehearsal{segment: segment, users: map[string]byte{}, samples: map[string]*whisperv1.Profile{}}
	if err := (cli.Scan{Client: client, Topics: []string{consumers.TopicUsers}}).Run(ctx, r.user); err != nil {
		return err
	}
	if parsed.Connected {
		r.on, r.sockets = map[string]struct{}{}, map[string]int{}
		if err := (cli.Scan{Client: client, Topics: []string{consumers.TopicPresence}}).Run(ctx, r.socket); err != nil {
			return err
		}
		r.keepConnected(parsed.Segment == "")
	}
	if parsed.Template != "" {
		if err := r.findTemplate(ctx, client, parsed); err != nil {
			return err
		}
	}
	return r.tell(p.Stdout, parsed, p.Now())
}

// user takes a record of whisper.users; the last one of each user counts.
func (r *rehearsal) user(rec *kgo.Record) error {
	user := string(rec.Key)
	delete(r.samples, user)
	if rec.Value == nil {
		delete(r.users, user)
		return nil
	}
	match, failed := r.segment.Match(user, profile.View(rec.Value))
	switch {
	case failed:
		r.users[user] = unanswered
	case !match:
		r.users[user] = notMeant
	default:
		r.users[user] = meant
		if len(r.samples) < samplesKept {
			profile := &whisperv1.Profile{}
			if err := proto.Unmarshal(rec.Value, profile); err == nil {
				r.samples[user] = profile
			}
		}
	}
	return nil
}

// socket takes a record of whisper.presence: a user, and a node. The last one of both counts.
func (r *rehearsal) socket(rec *kgo.Record) error {
	user, _, _ := strings.Cut(string(rec.Key), "\x00")
	if _, known := r.on[string(rec.Key)]; known == (rec.Value != nil) {
		return nil
	}
	if rec.Value == nil {
		delete(r.on, string(rec.Key))
		r.sockets[user]--
		return nil
	}
	r.on[string(rec.Key)] = struct{}{}
	r.sockets[user]++
	return nil
}

// keepConnected leaves those who have a socket. everyone: also those without a profile.
func (r *rehearsal) keepConnected(everyone bool) {
	for user := range r.users {
		if r.sockets[user] == 0 {
			delete(r.users, user)
			delete(r.samples, user)
		}
	}
	for user, n := range r.sockets {
		if _, known := r.users[user]; n > 0 && !known {
			if r.users[user] = notMeant; everyone {
				r.users[user] = meant
				r.samples[user] = &whisperv1.Profile{}
			}
		}
	}
}

func (r *rehearsal) findTemplate(ctx context.Context, client consumers.ClientConfig, req *request.Request) error {
	store, err := readTemplates(ctx, client)
	if err != nil {
		return err
	}
	rec, err := store.find(req.Template)
	if err != nil {
		return err
	}
	if r.tmpl, err = template.Parse(rec.Value); err != nil {
		return fmt.Errorf("template %q: %w", req.Template, err)
	}
	if err := r.tmpl.CheckVariables(req.Variables); err != nil {
		return fmt.Errorf("template %q: %w", req.Template, err)
	}
	return nil
}

func (r *rehearsal) tell(w io.Writer, req *request.Request, now time.Time) error {
	var total [3]int
	for _, state := range r.users {
		total[state]++
	}
	text := fmt.Sprintf("%d of %d users are meant", total[meant], len(r.users))
	if total[unanswered] > 0 {
		text += fmt.Sprintf("; of %d the segment can't be answered (a missing attribute?), so they are not", total[unanswered])
	}
	if req.Rate > 0 && total[meant] > 0 {
		takes := time.Duration(float64(total[meant]) / req.Rate * float64(time.Second)).Round(time.Second)
		text += fmt.Sprintf("; at %g a second it takes %s or more", req.Rate, takes)
	}
	if _, err := fmt.Fprintln(w, text); err != nil {
		return err
	}
	for _, user := range r.three() {
		profile := r.samples[user]
		content, why := req.Content, error(nil)
		if r.tmpl != nil {
			content, _, why = r.tmpl.Render(template.RenderingFor(req.Variables, profile, domain.ChannelSocket, now))
		}
		line := fmt.Sprintf("\n%s (%s)\n", user, profile.GetLocale())
		if why != nil {
			line += "  fails: " + why.Error() + "\n"
		} else {
			line += "  " + content.GetTitle() + "\n  " + content.GetBody() + "\n"
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, "\nNothing was sent.")
	return err
}

// three are users of as many locales as there are.
func (r *rehearsal) three() []string {
	users := slices.Sorted(maps.Keys(r.samples))
	var chosen []string
	locales := map[string]bool{}
	for _, user := range users {
		if locale := r.samples[user].GetLocale(); !locales[locale] && len(chosen) < 3 {
			locales[locale] = true
			chosen = append(chosen, user)
		}
	}
	for _, user := range users {
		if len(chosen) < 3 && !slices.Contains(chosen, user) {
			chosen = append(chosen, user)
		}
	}
	return chosen
}

// checkAudience: users, everyone, or a segment.
func (c *Send) checkAudience() []error {
	var errs []error
	named := 0
	for _, given := range []bool{len(c.User) > 0, c.All, c.Connected || c.Segment != ""} {
		if given {
			named++
		}
	}
	switch {
	case named == 0:
		errs = append(errs, errors.New("user: there is no recipient: give --user, --all, --segment or --connected, or what to --cancel"))
	case named > 1:
		errs = append(errs, errors.New("user: there are several audiences: give one of --user, --all and --segment; --connected goes alone or with --segment"))
	}
	if len(c.User) > 0 && (c.Rate != 0 || c.SendAtLocal != "") {
		errs = append(errs, errors.New("rate: --rate and --send-at-local are for broadcasts only: give --all, --segment or --connected instead of --user"))
	}
	if c.Connected && c.SendAtLocal != "" {
		errs = append(errs, errors.New("send-at-local: can't be combined with --connected, which finds the connected users once, when the broadcast begins: give --send-at"))
	}
	if _, err := segment.Compile(c.Segment); err != nil {
		errs = append(errs, fmt.Errorf("segment: %w", err))
	}
	if !(c.Rate >= 0 && c.Rate <= request.MaxRate) { // NaN is none
		errs = append(errs, fmt.Errorf("rate: %g is out of range: give deliveries a second, more than 0 and at most %d", c.Rate,
			int(request.MaxRate)))
	}
	return errs
}

// to is the audience of the request.
func (c *Send) to() *Audience {
	return &Audience{Users: c.User, Segment: c.Segment, All: c.All, Connected: c.Connected}
}

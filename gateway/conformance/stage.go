package conformance

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Scenarios is the list, as JSON: an array of Scenario.
//
//go:embed scenarios.json
var Scenarios []byte

// patience bounds every wait of a step; no healthy run comes near it.
const patience = 30 * time.Second

// Stage is where scenarios are played, over HTTP: Handler. Scenarios may be played at the same time.
type Stage struct {
	cluster   *kfake.Cluster
	publisher *consumers.Publisher
	reader    *consumers.Reader
	stop      context.CancelFunc
	done      sync.WaitGroup

	mu     sync.Mutex
	worlds map[string]*world // by user
	made   int
	nodes  int
	shared *node
}

// New starts Kafka. The caller closes the stage.
func New() (*Stage, error) {
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.SeedTopics(1, consumers.TopicEvents, consumers.TopicPresence, consumers.TopicNodes, consumers.TopicRevocations,
			consumers.TopicDeadLetters),
	)
	if err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	s := &Stage{cluster: cluster, worlds: map[string]*world{}}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if err := s.follow(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stage) kafka() consumers.ClientConfig {
	return consumers.ClientConfig{Brokers: s.cluster.ListenAddrs(), ClientID: "conformance"}
}

func (s *Stage) follow(ctx context.Context) error {
	var err error
	if s.publisher, err = consumers.NewPublisher(s.kafka(), 0); err != nil {
		return err
	}
	if s.reader, err = consumers.NewReader(s.kafka()); err != nil {
		return err
	}
	s.done.Go(func() { _ = s.reader.Run(ctx) })
	for topic, sink := range map[string]func([]*kgo.Record){consumers.TopicPresence: s.presences, consumers.TopicEvents: s.facts} {
		if _, err := s.reader.Follow(ctx, topic, 0, consumers.FromStart, sink); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stage) presences(records []*kgo.Record) {
	for _, rec := range records {
		user, node, _ := strings.Cut(string(rec.Key), "\x00")
		var p *whisperv1.Presence
		if rec.Value != nil {
			p = &whisperv1.Presence{}
			if proto.Unmarshal(rec.Value, p) != nil {
				continue
			}
		}
		if w := s.world(user); w != nil {
			w.present(node, p)
		}
	}
}

func (s *Stage) facts(records []*kgo.Record) {
	for _, rec := range records {
		var ev whisperv1.Event
		if proto.Unmarshal(rec.Value, &ev) != nil {
			continue
		}
		if w := s.world(ev.GetUserId()); w != nil {
			w.fact(&ev)
		}
	}
}

func (s *Stage) world(user string) *world {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.worlds[user]
}

// Close ends every node and Kafka.
func (s *Stage) Close() {
	s.mu.Lock()
	worlds := s.worlds
	s.worlds = map[string]*world{}
	shared := s.shared
	s.mu.Unlock()
	for _, w := range worlds {
		w.close()
	}
	if shared != nil {
		shared.kill()
	}
	s.stop()
	s.done.Wait()
	if s.reader != nil {
		s.reader.Close()
	}
	if s.publisher != nil {
		s.publisher.Close()
	}
	s.cluster.Close()
}

// newNode starts a gateway of its own name. The lock is held.
func (s *Stage) newNode(limits Limits) (*node, error) {
	s.nodes++
	n := &node{settings: nodeSettings{
		Node: "g" + strconv.Itoa(s.nodes), Addr: "127.0.0.1:0", Kafka: s.cluster.ListenAddrs(), Drain: 2 * time.Second, Limits: limits,
	}}
	return n, n.start()
}

// newWorld sets the stage of one play.
func (s *Stage) newWorld(nodes int, limits Limits) (*world, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	w := &world{
		stage: s, user: "user-" + strconv.Itoa(s.made), own: nodes > 0,
		changes: make(chan struct{}), presences: map[string]*whisperv1.Presence{},
	}
	for range nodes {
		n, err := s.newNode(limits)
		if err != nil {
			return nil, err
		}
		w.nodes = append(w.nodes, n)
	}
	if !w.own {
		if s.shared == nil {
			n, err := s.newNode(Limits{})
			if err != nil {
				return nil, err
			}
			s.shared = n
		}
		w.nodes = []*node{s.shared}
	}
	var err error
	if w.front, err = newFront(w.upstream, w.changed); err != nil {
		return nil, err
	}
	s.worlds[w.user] = w
	return w, nil
}

// Handler is how interpreters in any language play:
//
//	GET    /scenarios             the list
//	POST   /worlds {"nodes":n,"limits":{…}}   {"world":"…","url":"ws://…"}
//	POST   /worlds/{world}/token {"ttl_seconds":n,"kind":"wrong"}   the token, as text
//	POST   /worlds/{world}/steps  one step of a scenario; 422 with a sentence where it fails
//	DELETE /worlds/{world}
func (s *Stage) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /scenarios", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = rw.Write(Scenarios)
	})
	mux.HandleFunc("POST /worlds", func(rw http.ResponseWriter, r *http.Request) {
		var ask struct {
			Nodes  int    `json:"nodes"`
			Limits Limits `json:"limits"`
		}
		answer(rw, r, &ask, func() (any, error) {
			w, err := s.newWorld(ask.Nodes, ask.Limits)
			if err != nil {
				return nil, err
			}
			return map[string]string{"world": w.user, "url": w.front.url()}, nil
		})
	})
	mux.HandleFunc("POST /worlds/{world}/token", func(rw http.ResponseWriter, r *http.Request) {
		var ask struct {
			TTL  int64  `json:"ttl_seconds"`
			Kind string `json:"kind"`
		}
		answer(rw, r, &ask, func() (any, error) {
			w := s.world(r.PathValue("world"))
			if w == nil {
				return nil, errNoWorld
			}
			return w.token(time.Duration(ask.TTL)*time.Second, ask.Kind)
		})
	})
	mux.HandleFunc("POST /worlds/{world}/steps", func(rw http.ResponseWriter, r *http.Request) {
		var step Step
		answer(rw, r, &step, func() (any, error) { //nolint:contextcheck // the step's context is made of the request's
			w := s.world(r.PathValue("world"))
			if w == nil {
				return nil, errNoWorld
			}
			ctx, cancel := context.WithTimeout(r.Context(), patience)
			defer cancel()
			return nil, w.play(ctx, step)
		})
	})
	mux.HandleFunc("DELETE /worlds/{world}", func(rw http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		w := s.worlds[r.PathValue("world")]
		delete(s.worlds, r.PathValue("world"))
		s.mu.Unlock()
		if w != nil {
			w.close()
		}
		rw.WriteHeader(http.StatusNoContent)
	})
	return mux
}

var errNoWorld = errors.New("there is no such world")

// answer decodes, does it and encodes: text as it is, nothing as 204, an error as 422 with its sentence.
func answer(rw http.ResponseWriter, r *http.Request, ask any, do func() (any, error)) {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(ask); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	got, err := do()
	if err != nil {
		http.Error(rw, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	switch v := got.(type) {
	case nil:
		rw.WriteHeader(http.StatusNoContent)
	case string:
		_, _ = rw.Write([]byte(v))
	default:
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(v) // who asked is gone
	}
}

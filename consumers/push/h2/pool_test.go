package h2

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push/observe"
)

// serve starts an HTTP/2 server that counts connections, and a pool to it.
func serve(t *testing.T, change func(*Config), handle http.HandlerFunc) (p *Pool, conns *atomic.Int32) {
	t.Helper()
	conns = new(atomic.Int32)
	srv := httptest.NewUnstartedServer(handle)
	srv.EnableHTTP2 = true
	srv.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		conns.Add(1)
		return ctx
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	base, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Base: base, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Connections: 2, Streams: 10,
		ConnectTimeout: time.Minute, Watch: observe.New(metrics.NewSet(), "test", ""), Now: time.Now,
	}
	if change != nil {
		change(&cfg)
	}
	p = New(cfg)
	t.Cleanup(p.Close)
	return p, conns
}

func ask(ctx context.Context, t *testing.T, p *Pool, path string) (*Reply, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.cfg.Base.String()+path, strings.NewReader("{}"))
	if err != nil {
		t.Error(err)
		return nil, err
	}
	return p.Do(req)
}

func TestRequestsAndConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	var now, most, warm atomic.Int32
	p, conns := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if warm.Load() == 0 && n > 1 {
			t.Errorf("%d requests before the first was answered", n)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		now.Add(-1)
		warm.Store(1)
		_, _ = fmt.Fprint(w, "ok")
	})
	var all sync.WaitGroup
	for range 300 {
		all.Go(func() {
			reply, err := ask(t.Context(), t, p, "/")
			if err != nil || reply.Status != http.StatusOK || string(reply.Body) != "ok" || reply.Cut {
				t.Errorf("%+v, %v", reply, err)
			}
		})
	}
	all.Wait()
	if conns.Load() > 2 || most.Load() > 20 {
		t.Errorf("%d connections, %d requests at once", conns.Load(), most.Load())
	}
}

func TestWhatANoAnswerSays(t *testing.T) {
	t.Parallel()
	p, conns := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/never":
			<-r.Context().Done()
		case "/cut":
			panic(http.ErrAbortHandler)
		case "/half":
			w.Header().Set("Content-Length", "100")
			_, _ = fmt.Fprint(w, `{"half`)
		case "/long":
			_, _ = w.Write(make([]byte, 1<<20))
		}
	})
	silent, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for path, ctx := range map[string]context.Context{"/never": silent, "/cut": t.Context()} {
		var none *NoAnswer
		if _, err := ask(ctx, t, p, path); !errors.As(err, &none) || !none.Arrived || none.Conn == nil {
			t.Errorf("%s: %+v", path, err)
		} else if path == "/cut" {
			p.Discard(none.Conn)
		}
	}
	if reply, err := ask(t.Context(), t, p, "/half"); err != nil || !reply.Cut || string(reply.Body) != `{"half` {
		t.Errorf("half: %+v, %v", reply, err)
	}
	if reply, err := ask(t.Context(), t, p, "/long"); err != nil || len(reply.Body) != MaxBody {
		t.Errorf("long: %v", err)
	}
	if conns.Load() != 2 {
		t.Errorf("%d connections, one was discarded", conns.Load())
	}
	p.Close()
	var none *NoAnswer
	if _, err := ask(t.Context(), t, p, "/"); !errors.As(err, &none) || none.Arrived {
		t.Errorf("closed: %v", err)
	}
}

// A server that takes no connection is not dialled for each request.
func TestDialsArePaced(t *testing.T) {
	t.Parallel()
	p, _ := serve(t, func(c *Config) { c.Base = &url.URL{Scheme: "https", Host: "127.0.0.1:1"} }, nil)
	for range 200 {
		var none *NoAnswer
		if _, err := ask(t.Context(), t, p, "/"); !errors.As(err, &none) || none.Arrived || none.Conn != nil {
			t.Fatalf("got %v", err)
		}
	}
	if n := p.m.DialFailures.Get(); n == 0 || n > 150 {
		t.Errorf("%d dials", n)
	}
}

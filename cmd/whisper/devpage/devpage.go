// Package devpage is the small page of `whisper dev`: a person picks a user, sees notifications arrive,
// marks them read and sends some. It owns the page and the two endpoints behind it, which give anybody a
// token and let anybody send: it must never be mounted anywhere but in `whisper dev`.
//
// The page's script is page/app.js, bundled from page/app.mts and the SDK by `make sdk`.
package devpage

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/record"
)

//go:embed page/index.html page/style.css page/app.js
var files embed.FS

// Request is what the page sends.
type Request struct {
	// ID is the page's, so that it can time the way: the notification may arrive before the answer.
	ID    string `json:"id"`
	User  string `json:"user"`
	Lane  string `json:"lane"`
	Title string `json:"title"`
	Body  string `json:"body"`
}

// Config is what the page stands on; both are required.
type Config struct {
	// Token mints a token for a user.
	Token func(user string) (string, error)
	// Send asks for a notification as any upstream service would.
	Send func(ctx context.Context, lane domain.Lane, r Request) error
}

// policy lets the page load nothing but its own files and talk to nobody but its own server.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const maxBody = 64 << 10

// Handler serves /, the page's files, and POST /dev/token and /dev/send. It answers pages of this machine only:
// not other sites', and not under a name that somebody points at 127.0.0.1.
func Handler(cfg Config) http.Handler {
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(fmt.Sprintf("devpage: %v", err)) // the name is a constant
	}
	mux := http.NewServeMux()
	served := http.FileServerFS(page)
	mux.Handle("GET /{$}", served)
	mux.Handle("GET /style.css", served)
	mux.Handle("GET /app.js", served)
	mux.HandleFunc("POST /dev/token", cfg.token)
	mux.HandleFunc("POST /dev/send", cfg.send)
	guarded := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !local(r.Host) {
			http.Error(w, "open this page by its address, or as localhost", http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		guarded.ServeHTTP(w, r)
	})
}

func local(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}

func (c Config) token(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		User string `json:"user"`
	}
	if !decode(w, r, &ask) {
		return
	}
	token, err := c.Token(ask.User)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	answer(w, map[string]string{"token": token})
}

func (c Config) send(w http.ResponseWriter, r *http.Request) {
	var ask Request
	if !decode(w, r, &ask) {
		return
	}
	lane, err := ask.check()
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	if err := c.Send(r.Context(), lane, ask); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	answer(w, map[string]string{"id": ask.ID})
}

// check finds what a person mistypes; intake has the last word on a request.
func (r Request) check() (domain.Lane, error) {
	lane, err := domain.ParseLane(r.Lane)
	errs := []error{err}
	if err := domain.CheckID(r.User); err != nil {
		errs = append(errs, fmt.Errorf("user: %w", err))
	}
	if err := domain.CheckID(r.ID); err != nil {
		errs = append(errs, fmt.Errorf("id: %w", err))
	}
	if strings.TrimSpace(r.Title+r.Body) == "" {
		errs = append(errs, errors.New("body: there is nothing to send: give a title or a body"))
	}
	return lane, errors.Join(errs...)
}

func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		if _, err = record.StrictMembers(body, "the body"); err == nil {
			err = json.Unmarshal(body, into)
		}
	}
	if err != nil {
		http.Error(w, "the body is not the JSON that this takes: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked is gone
}

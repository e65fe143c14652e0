package devpage_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klivvr/whisper/cmd/whisper/devpage"
	"github.com/klivvr/whisper/domain"
)

func setup(t *testing.T) (http.Handler, *[]devpage.Request) {
	t.Helper()
	var sent []devpage.Request
	return devpage.Handler(devpage.Config{
		Token: func(user string) (string, error) {
			if user == "" {
				return "", errors.New("user: is empty")
			}
			return "token of " + user, nil
		},
		Send: func(_ context.Context, lane domain.Lane, r devpage.Request) error {
			if r.Lane != lane.String() {
				t.Errorf("lane %s of %+v", lane, r)
			}
			sent = append(sent, r)
			return nil
		},
	}), &sent
}

func TestThePageStandsOnItsOwn(t *testing.T) {
	t.Parallel()
	h, _ := setup(t)
	for path, want := range map[string]string{"/": "<title>Whisper", "/style.css": "--accent", "/app.js": "Code generated"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:8080"+path, nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d", path, w.Code)
		}
		if !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s has no policy", path)
		}
		if path == "/" && strings.Contains(strings.ReplaceAll(w.Body.String(), "http-equiv", ""), "http") {
			t.Error("the page names something outside")
		}
	}
}

func TestTheEndpoints(t *testing.T) {
	t.Parallel()
	good := `{"id":"p-1","user":"mona","lane":"high","title":"T","body":"B"}`
	tests := map[string]struct {
		url, origin, body string
		code              int
		want              string
	}{
		"a token":            {"http://127.0.0.1:8080/dev/token", "", `{"user":"mona"}`, 200, "token of mona"},
		"by name":            {"http://localhost:8080/dev/token", "http://localhost:8080", `{"user":"mona"}`, 200, "token of mona"},
		"over IPv6":          {"http://[::1]:8080/dev/token", "", `{"user":"mona"}`, 200, "token of mona"},
		"nobody's":           {"http://127.0.0.1:8080/dev/token", "", `{}`, 422, "user"},
		"not JSON":           {"http://127.0.0.1:8080/dev/token", "", `user=mona`, 400, "JSON"},
		"another site":       {"http://127.0.0.1:8080/dev/token", "https://example.com", `{"user":"mona"}`, 403, ""},
		"a name put here":    {"http://example.com:8080/dev/token", "http://example.com:8080", `{"user":"mona"}`, 403, "localhost"},
		"a notification":     {"http://127.0.0.1:8080/dev/send", "", good, 200, "p-1"},
		"no such lane":       {"http://127.0.0.1:8080/dev/send", "", strings.Replace(good, "high", "fast", 1), 422, "fast"},
		"nothing to say":     {"http://127.0.0.1:8080/dev/send", "", `{"id":"p","user":"mona","lane":"low"}`, 422, "give a title or a body"},
		"to nobody, unnamed": {"http://127.0.0.1:8080/dev/send", "", `{"lane":"low","title":"T"}`, 422, "id: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, sent := setup(t)
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, tt.url, strings.NewReader(tt.body))
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("%d %s, want %d with %q", w.Code, w.Body, tt.code, tt.want)
			}
			if (len(*sent) == 1) != (tt.want == "p-1") {
				t.Errorf("sent %v", *sent)
			}
		})
	}
}

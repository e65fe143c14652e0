package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthFailsWhereTheSystemIsDegraded(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		body   string
		args   []string
		code   int
		says   string
	}{
		"healthy":               {200, `{"status":"healthy","reasons":[]}`, nil, exitOK, ""},
		"degraded":              {200, `{"status":"degraded","reasons":["no dispatch is running","node a is silent"]}`, nil, exitError, "degraded: no dispatch is running; node a is silent"},
		"degraded, only to see": {200, `{"status":"degraded","reasons":["x"]}`, []string{"--no-fail"}, exitOK, ""},
		"something else":        {200, `{"status":""}`, nil, exitError, "not a health document"},
		"not JSON":              {200, `<html>`, nil, exitError, "not a health document"},
		"an error":              {500, `{}`, nil, exitError, "answers 500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			}))
			defer server.Close()
			got := whisper(t, nil, append([]string{"health", "--url", server.URL}, tt.args...)...)
			if got.code != tt.code || !strings.Contains(got.stderr, tt.says) || !strings.Contains(got.stdout, tt.body) {
				t.Errorf("code %d, %q, %q", got.code, got.stderr, got.stdout)
			}
		})
	}
}

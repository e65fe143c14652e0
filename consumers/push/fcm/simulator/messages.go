package simulator

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxBody is past every limit.
const maxBody = 64 << 10

// messages is POST /v1/projects/{p}/messages:send.
func (s *Simulator) messages(w http.ResponseWriter, r *http.Request) {
	project, method, found := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/projects/"), "/")
	if !found || method != "messages:send" || r.Method != http.MethodPost {
		s.refuse(w, Answer{Status: http.StatusNotFound, Message: "Method not found."})
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			s.refuse(w, Answer{Status: http.StatusRequestEntityTooLarge, Message: "Request is too large."})
		}
		return
	}
	if !s.authorized(r.Header.Get("Authorization")) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://accounts.google.com/"`)
		s.refuse(w, Answer{
			Status:  http.StatusUnauthorized,
			Message: "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.",
		})
		return
	}
	if project != s.cfg.Project {
		s.refuse(w, Answer{
			Status:  http.StatusForbidden,
			Message: "Permission 'cloudmessaging.messages.create' denied on resource '//cloudresourcemanager.googleapis.com/projects/" + project + "' (or it may not exist).",
		})
		return
	}
	m, wrong := check(body)
	if wrong != nil {
		s.refuse(w, *wrong)
		return
	}
	s.answer(w, r, m, body)
}

// answer gives a good message what was asked for, or takes it.
func (s *Simulator) answer(w http.ResponseWriter, r *http.Request, m checked, body []byte) {
	s.mu.Lock()
	a, ok := s.limited(m.device)
	if !ok {
		a, _ = s.programmed(m.device)
	}
	s.mu.Unlock()
	if !s.wait(r, a.Delay+s.cfg.Latency) {
		s.unanswered() // the client gave up
		return
	}
	switch a.Fault {
	case Silent:
		s.unanswered()
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Cut:
		s.unanswered()
		if c, is := r.Context().Value(connKey{}).(net.Conn); is {
			_ = c.Close() // that is the fault
		}
		panic(http.ErrAbortHandler)
	case Reset:
		s.unanswered()
		panic(http.ErrAbortHandler)
	case GoAway:
		w.Header().Set("Connection", "close") // HTTP/2 has GOAWAY for it
	case Half:
		s.unanswered()
		w.Header().Set("Content-Length", "500")
		w.WriteHeader(max(a.Status, http.StatusOK))
		_, _ = w.Write([]byte(`{"name":"proj`))
		_ = http.NewResponseController(w).Flush() // the client is gone
		panic(http.ErrAbortHandler)
	default:
	}
	if a.Status != 0 && a.Status != http.StatusOK || a.Body != nil {
		s.refuse(w, a)
		return
	}
	name := "projects/" + s.cfg.Project + "/messages/fake_message_id"
	if !m.validateOnly {
		name = s.accepted(m.device, body)
	}
	writeJSON(w, http.StatusOK, map[string]string{"name": name})
}

func (s *Simulator) wait(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// canonical are Google's names of statuses.
var canonical = map[int]string{
	400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 413: "INVALID_ARGUMENT",
	429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}

// refuse writes an error as Google does.
func (s *Simulator) refuse(w http.ResponseWriter, a Answer) {
	status := a.Status
	if status == 0 {
		status = http.StatusOK
	}
	reason := a.Code
	if reason == "" {
		reason = canonical[status]
	}
	s.mu.Lock()
	s.counts.Refused[reason]++
	s.mu.Unlock()
	if a.RetryAfter != "" {
		w.Header().Set("Retry-After", a.RetryAfter)
	}
	if a.Body != nil {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, *a.Body) // the client is gone
		return
	}
	var details []map[string]any
	if a.Code != "" {
		details = append(details, map[string]any{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": a.Code})
	}
	if a.Field != "" {
		details = append(details, map[string]any{
			"@type":           "type.googleapis.com/google.rpc.BadRequest",
			"fieldViolations": []map[string]string{{"field": a.Field, "description": a.Message}},
		})
	}
	if a.Quota != "" {
		details = append(details, map[string]any{
			"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []map[string]string{{"description": a.Quota}},
		})
	}
	failure := map[string]any{"code": status, "message": a.Message, "status": canonical[status]}
	if details != nil {
		failure["details"] = details
	}
	writeJSON(w, status, map[string]any{"error": failure})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // plain values
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone
}

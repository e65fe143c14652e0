package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// The load client and the floor run in processes of their own, so that each one's CPU and memory are its
// own. They take one JSON object a line and answer each with one; they end with their input.

type helperRequest struct {
	// Do: count (client), write, echo, stats (floor).
	Do     string `json:"do"`
	Frames int    `json:"frames,omitempty"`
	Gather int    `json:"gather,omitempty"` // frames a write
}

type helperReply struct {
	Error     string `json:"error,omitempty"`
	Addr      string `json:"addr,omitempty"`
	Connected int    `json:"connected,omitempty"`
	Frames    int64  `json:"frames"` // that came in since the start
	Closed    int64  `json:"closed"`
	Pings     int64  `json:"pings"`
}

// helper is this program again, as a client or a floor.
type helper struct {
	process
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
}

func startHelper(args ...string) (*helper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	h := &helper{process: process{name: args[0], done: make(chan struct{})}}
	h.cmd = exec.Command(self, append([]string{"bench"}, args...)...) //nolint:noctx // it ends with its input
	h.cmd.Stderr = &h.out
	h.cmd.SysProcAttr = childAttributes()
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	h.enc, h.dec = json.NewEncoder(h.in), json.NewDecoder(bufio.NewReader(out))
	return h, nil
}

// reply waits for the next answer.
func (h *helper) reply() (helperReply, error) {
	var r helperReply
	err := h.dec.Decode(&r)
	switch {
	case err != nil:
		return r, fmt.Errorf("%s: %w: %s", h.name, err, h.out.String())
	case r.Error != "":
		return r, fmt.Errorf("%s: %s", h.name, r.Error)
	}
	return r, nil
}

func (h *helper) ask(r helperRequest) (helperReply, error) {
	if err := h.enc.Encode(r); err != nil {
		return helperReply{}, fmt.Errorf("%s: %w: %s", h.name, err, h.out.String())
	}
	return h.reply()
}

// end closes its input and waits.
func (h *helper) end() {
	_ = h.in.Close()
	go func() { _ = h.cmd.Wait(); close(h.done) }()
	select {
	case <-h.done:
	case <-time.After(20 * time.Second):
		_ = h.cmd.Process.Kill()
		<-h.done
	}
}

// serveHelper answers requests until the input ends.
func serveHelper(in io.Reader, out io.Writer, first helperReply, do func(helperRequest) helperReply) error {
	if err := json.NewEncoder(out).Encode(first); err != nil {
		return err
	}
	return serveLines(in, out, do)
}

func serveLines[Q, A any](in io.Reader, out io.Writer, do func(Q) A) error {
	enc, dec := json.NewEncoder(out), json.NewDecoder(in)
	for {
		var q Q
		if err := dec.Decode(&q); err != nil {
			return nil //nolint:nilerr // the parent has what it wanted
		}
		if err := enc.Encode(do(q)); err != nil {
			return err
		}
	}
}

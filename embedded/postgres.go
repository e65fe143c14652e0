package embedded

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// PostgresConfig says where the embedded Postgres listens and what it keeps.
type PostgresConfig struct {
	// Port on 127.0.0.1; 0 takes a free one.
	Port int
	// DataDir is the folder of its whole state. Empty means a temporary one, removed at the end, on
	// which Postgres runs without fsync: fast, and worthless after a crash of the machine.
	DataDir string
	// CacheDir keeps downloaded binaries. Empty means a per-user folder shared by all projects.
	CacheDir string
	// NoSync runs without fsync, as a temporary one does: a crash of the machine ruins the data, a
	// crash of Postgres alone does not.
	NoSync bool
	// User, Password and Database are created with the data; "whisper" when empty.
	User, Password, Database string
	// Settings of the server, such as max_connections (200). They stand over the package's own.
	Settings map[string]string
	// Env is added to the environment of the server.
	Env []string
	// Logger takes what Postgres and its host say; slog.Default() when nil.
	Logger *slog.Logger
}

// Postgres is a running server.
//
// It is the child of a host process: this executable again, see RunIfPostgresHost. The host exists for
// two reasons. Postgres refuses to run as root, so under root the host becomes somebody else first. And
// it watches a pipe whose other end only this process holds: when this process is gone, SIGKILL
// included, the pipe closes and the host stops Postgres cleanly.
type Postgres struct {
	cfg   PostgresConfig
	host  *exec.Cmd
	stdin io.WriteCloser
	state string
	ready hostReady

	stopping sync.Once
	stopErr  error
	exited   chan struct{}
	exitErr  error
}

// hostConfig is the first line a host reads; hostReply the lines it answers with.
type hostConfig struct {
	Port                     int
	StateDir, CacheDir       string
	Ephemeral, NoSync        bool
	User, Password, Database string
	Settings                 map[string]string
	UID, GID                 int // to become; -1 to stay
}

type hostReply struct {
	Ready *hostReady `json:",omitempty"`
	Error string     `json:",omitempty"`
	Done  bool       `json:",omitempty"`
}

type hostReady struct {
	Port, PID int
	Version   string
	Binaries  string
}

// StartPostgres starts a server and returns once it takes connections. The first start on a machine
// without PostgreSQL downloads 15 MB; the first in a folder runs initdb, about two seconds; later ones
// take well under one.
//
// Cancelling ctx gives up a start under way; it does not stop a server that has started.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	if !hostReachable {
		return nil, errors.New("embedded postgres: embedded.RunIfPostgresHost must be called first thing in main or TestMain")
	}
	cfg.setDefaults()
	hc, err := cfg.prepare()
	if err != nil {
		return nil, fmt.Errorf("embedded postgres: %w", err)
	}
	p := &Postgres{cfg: cfg, state: hc.StateDir, exited: make(chan struct{})}
	stdout, err := p.launch(hc)
	if err != nil {
		return nil, fmt.Errorf("embedded postgres: start its host process: %w", err)
	}
	replies := make(chan hostReply)
	go p.read(stdout, replies)
	select {
	case r := <-replies:
		if r.Ready == nil {
			_ = p.stdin.Close()
			<-p.exited
			if r.Error == "" {
				r.Error = fmt.Sprintf("its host process ended unexpectedly (%v)", p.exitErr)
			}
			return nil, errors.New("embedded postgres: " + r.Error)
		}
		p.ready = *r.Ready
		cfg.Logger.Debug("embedded postgres is up", "version", p.ready.Version, "port", p.ready.Port,
			"pid", p.ready.PID, "binaries", p.ready.Binaries, "state_dir", hc.StateDir)
		return p, nil
	case <-ctx.Done():
		_ = p.stdin.Close()
		<-p.exited
		return nil, fmt.Errorf("embedded postgres: start: %w", context.Cause(ctx))
	}
}

func (cfg *PostgresConfig) setDefaults() {
	for _, s := range []*string{&cfg.User, &cfg.Password, &cfg.Database} {
		if *s == "" {
			*s = "whisper"
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
}

// launch starts the host in a session of its own: a Ctrl-C in the terminal is for this process, which
// then stops the host in its turn.
func (p *Postgres) launch(hc hostConfig) (io.Reader, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Not the caller's context: its SIGKILL would leave Postgres without a host.
	p.host = exec.CommandContext(context.Background(), exe)
	p.host.Env = append(append(os.Environ(), p.cfg.Env...), hostEnv+"=1")
	p.host.Dir = "/"
	p.host.SysProcAttr = ownSession()
	if p.stdin, err = p.host.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.host.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.host.Stderr = &lineLogger{log: p.cfg.Logger}
	if err := p.host.Start(); err != nil {
		return nil, err
	}
	return stdout, json.NewEncoder(p.stdin).Encode(hc)
}

// read hands on the first reply and reaps the host once it has closed its output.
func (p *Postgres) read(stdout io.Reader, first chan<- hostReply) {
	var last hostReply
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for n := 0; lines.Scan(); n++ {
		last = hostReply{}
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			last.Error = "its host process said something else than a reply: " + lines.Text()
		}
		if n == 0 {
			first <- last
		}
	}
	p.exitErr = p.host.Wait()
	if last.Error != "" {
		p.exitErr = errors.New(last.Error)
	}
	close(p.exited)
	close(first)
}

// URL connects to the database made with the data.
func (p *Postgres) URL() string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(p.cfg.User, p.cfg.Password),
		Host: "127.0.0.1:" + strconv.Itoa(p.ready.Port), Path: "/" + p.cfg.Database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Port is the one it listens on, PID the process id of its postmaster, Version as it calls itself.
func (p *Postgres) Port() int       { return p.ready.Port }
func (p *Postgres) PID() int        { return p.ready.PID }
func (p *Postgres) Version() string { return p.ready.Version }

// StateDir is where the state is: DataDir, unless Postgres could not run there.
func (p *Postgres) StateDir() string { return p.state }

// Exited is closed when the server and its host are gone.
func (p *Postgres) Exited() <-chan struct{} { return p.exited }

// Stop disconnects clients, writes a checkpoint and ends the server. A temporary DataDir is removed.
func (p *Postgres) Stop(ctx context.Context) error { return p.end(ctx, "stop") }

// Kill ends the server with SIGKILL, as a crash would. A temporary DataDir is removed.
func (p *Postgres) Kill(ctx context.Context) error { return p.end(ctx, "kill") }

func (p *Postgres) end(ctx context.Context, how string) error {
	p.stopping.Do(func() {
		_, p.stopErr = io.WriteString(p.stdin, how+"\n")
		_ = p.stdin.Close()
	})
	select {
	case <-p.exited:
	case <-ctx.Done():
		return fmt.Errorf("embedded postgres: %s: %w", how, context.Cause(ctx))
	}
	if p.exitErr != nil {
		return fmt.Errorf("embedded postgres: %s: %w", how, p.exitErr)
	}
	if p.stopErr != nil {
		return fmt.Errorf("embedded postgres: %s: tell its host process: %w", how, p.stopErr)
	}
	return nil
}

// lineLogger logs what the host and Postgres print, at debug: a server's start is chatty.
type lineLogger struct {
	log  *slog.Logger
	rest string
}

func (l *lineLogger) Write(b []byte) (int, error) {
	l.rest += string(b)
	for {
		line, rest, ok := strings.Cut(l.rest, "\n")
		if !ok {
			return len(b), nil
		}
		l.rest = rest
		if line = strings.TrimSpace(line); line != "" {
			l.log.Debug("embedded postgres", "line", line)
		}
	}
}

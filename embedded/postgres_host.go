package embedded

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// hostEnv makes this executable, started again, a Postgres host.
const hostEnv = "WHISPER_POSTGRES_HOST"

// hostReachable says that a child of this executable would get to RunIfPostgresHost. Without the check
// a test binary that forgot it would start its own tests again as a host, and those theirs.
var hostReachable bool

// RunIfPostgresHost must be the first thing in main, and in the TestMain of every test that starts a
// Postgres. In a process that StartPostgres started it runs Postgres and never returns; in any other
// it does nothing.
func RunIfPostgresHost() {
	hostReachable = true
	if os.Getenv(hostEnv) == "" {
		return
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	out := json.NewEncoder(os.Stdout)
	if err := runHost(os.Stdin, out); err != nil {
		_ = out.Encode(hostReply{Error: err.Error()})
		os.Exit(1)
	}
	_ = out.Encode(hostReply{Done: true})
	os.Exit(0)
}

type host struct {
	hostConfig
	bin  binaries
	pg   *embeddedpostgres.EmbeddedPostgres
	lock *os.File
}

func (h *host) dataDir() string { return filepath.Join(h.StateDir, "data") }

// runHost is the host's life: become the user, start, wait for the word or for the parent's end, stop.
func runHost(stdin io.Reader, out *json.Encoder) error {
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return nil // the parent died before it said anything
	}
	h := &host{}
	if err := json.Unmarshal(line, &h.hostConfig); err != nil {
		return fmt.Errorf("read its configuration: %w", err)
	}
	if err := h.becomeUser(); err != nil {
		return err
	}
	if h.Ephemeral {
		defer func() { _ = os.RemoveAll(h.StateDir) }()
	}
	words := make(chan string, 1)
	go func() {
		word, _ := in.ReadString('\n') // "" at EOF: the parent is gone
		words <- strings.TrimSpace(word)
	}()

	ctx := context.Background()
	if err := h.prepare(ctx); err != nil {
		return err
	}
	started := make(chan error, 1)
	go func() { started <- h.start() }()
	select {
	case err = <-started:
	case word := <-words:
		if h.bin.download && !hasPrograms(h.bin.dir) {
			return nil // still downloading: there is no server to stop
		}
		words <- word
		err = <-started
	}
	if err != nil {
		return err
	}
	pid, err := postmasterPID(h.dataDir())
	if err != nil {
		return fmt.Errorf("read the server's process id: %w", err)
	}
	_ = out.Encode(hostReply{Ready: &hostReady{
		Port: h.Port, PID: pid, Version: string(h.bin.version), Binaries: h.bin.dir,
	}})
	if <-words == "kill" {
		return killTree(pid)
	}
	return h.pg.Stop()
}

// becomeUser gives up root for good. The working directory and HOME of root are closed to the user.
func (h *host) becomeUser() error {
	if h.UID < 0 {
		return nil
	}
	if err := becomeID(h.UID, h.GID); err != nil {
		return fmt.Errorf("become user %d: %w", h.UID, err)
	}
	return os.Setenv("HOME", h.StateDir)
}

// prepare makes the state folder this host's own, ends what an earlier host left behind, and picks the
// binaries and the port.
func (h *host) prepare(ctx context.Context) error {
	lock, holder, err := lockFile(filepath.Join(h.StateDir, "lock"))
	if err != nil {
		return fmt.Errorf("data folder %s: %w", h.StateDir, err)
	}
	if lock == nil {
		return fmt.Errorf("data folder %s is in use by process %s: stop it (another `whisper dev`?), or choose another folder",
			h.StateDir, holder)
	}
	h.lock = lock // held until this process ends

	// The library's server log goes to TMPDIR and is never removed.
	logs := filepath.Join(h.StateDir, "log")
	if err := errors.Join(os.RemoveAll(logs), os.MkdirAll(logs, 0o700), os.Setenv("TMPDIR", logs), os.Chdir(h.StateDir)); err != nil {
		return fmt.Errorf("prepare data folder: %w", err)
	}
	if _, err := os.Stat(h.initialised()); err != nil {
		// Cut short on the way: initdb leaves what looks like data and does not start.
		if err := os.RemoveAll(h.dataDir()); err != nil {
			return fmt.Errorf("remove unfinished data: %w", err)
		}
	}
	major := ""
	if b, err := os.ReadFile(filepath.Join(h.dataDir(), "PG_VERSION")); err == nil {
		major = strings.TrimSpace(string(b))
	}
	if h.bin, err = chooseBinaries(ctx, h.CacheDir, major); err != nil {
		return err
	}
	if err := h.clearLeftover(); err != nil {
		return err
	}
	return h.claimPort(ctx)
}

func (h *host) initialised() string { return filepath.Join(h.StateDir, "initialised") }

// clearLeftover ends the server of a host that was itself killed, and removes a pid file whose process
// is gone: Postgres would not start if another of the user's processes has that id by now. The lock
// says that nobody else's server can be meant.
func (h *host) clearLeftover() error {
	pid, err := postmasterPID(h.dataDir())
	if err != nil {
		return nil //nolint:nilerr // no pid file, or no data at all: nothing is left over
	}
	if isPostgres(pid) {
		if err := killTree(pid); err != nil {
			return fmt.Errorf("end the server that a killed process left behind: %w", err)
		}
	}
	return os.Remove(filepath.Join(h.dataDir(), "postmaster.pid"))
}

func (h *host) claimPort(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(h.Port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d on 127.0.0.1 is in use: stop what listens there (another `whisper dev`?), or choose another port", h.Port)
	}
	if err != nil {
		return fmt.Errorf("listen on port %d: %w", h.Port, err)
	}
	if addr, ok := l.Addr().(*net.TCPAddr); ok {
		h.Port = addr.Port
	}
	return l.Close()
}

func (h *host) start() error {
	if h.bin.download {
		release, err := h.lockDownload()
		if err != nil {
			return err
		}
		defer release()
	}
	parameters := map[string]string{
		"listen_addresses": "127.0.0.1",
		// The default folder for sockets is not ours to write to.
		"unix_socket_directories": "",
		"max_connections":         "200",
		// Compiling a query costs more than running it on a development machine's tables.
		"jit": "off",
	}
	if h.NoSync {
		// Not synchronous_commit: without it Postgres alone can crash and lose what it had confirmed.
		parameters["fsync"], parameters["full_page_writes"] = "off", "off"
	}
	maps.Copy(parameters, h.Settings)
	h.pg = embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(h.bin.version).
		Port(uint32(h.Port)).
		Username(h.User).Password(h.Password).Database(h.Database).
		CachePath(h.CacheDir).
		BinariesPath(h.bin.dir).
		RuntimePath(filepath.Join(h.StateDir, "run")).
		DataPath(h.dataDir()).
		// The same order on every machine, whatever its locale; C is built in everywhere.
		Locale("C").Encoding("UTF8").
		StartParameters(parameters).
		StartTimeout(time.Minute).
		Logger(os.Stderr))
	if err := h.pg.Start(); err != nil {
		if h.bin.download && !hasPrograms(h.bin.dir) {
			return fmt.Errorf("this machine has no PostgreSQL and it could not be downloaded (%w): "+
				"go online once, or install it (apt-get install postgresql, brew install postgresql@17), or use a server you have", err)
		}
		return fmt.Errorf("start PostgreSQL %s from %s on port %d with data in %s: %w", h.bin.version, h.bin.dir, h.Port, h.dataDir(), err)
	}
	if h.bin.download {
		if err := os.WriteFile(filepath.Join(h.bin.dir, completeMark), nil, 0o644); err != nil {
			return errors.Join(fmt.Errorf("mark downloaded binaries: %w", err), h.pg.Stop())
		}
	}
	if err := os.WriteFile(h.initialised(), nil, 0o644); err != nil {
		return errors.Join(fmt.Errorf("mark data as complete: %w", err), h.pg.Stop())
	}
	return nil
}

// lockDownload keeps two first starts from unpacking into the same folder, and removes what an
// interrupted one left.
func (h *host) lockDownload() (release func(), err error) {
	f, err := os.OpenFile(h.bin.dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cache folder: %w", err)
	}
	if err := flock(f, true); err != nil {
		return nil, fmt.Errorf("lock cache folder: %w", err)
	}
	release = func() { _ = f.Close() }
	if _, err := os.Stat(filepath.Join(h.bin.dir, completeMark)); err == nil {
		return release, nil // the other one finished it
	}
	if err := os.RemoveAll(h.bin.dir); err != nil {
		release()
		return nil, fmt.Errorf("remove an unfinished download: %w", err)
	}
	// The library sets no timeout, and this process fetches nothing else.
	http.DefaultClient.Timeout = 5 * time.Minute
	return release, nil
}

func postmasterPID(dataDir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("postmaster.pid starts with %q", line)
	}
	return pid, nil
}

// killTree ends a postmaster and its backends with SIGKILL and returns when all are gone. Backends that
// outlive their postmaster for a moment would make the next start fail on shared memory still in use.
func killTree(pid int) error {
	pids := append([]int{pid}, childrenOf(pid)...)
	for _, p := range pids {
		if err := killHard(p); err != nil {
			return fmt.Errorf("kill process %d: %w", p, err)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, p := range pids {
		for alive(p) {
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d is still there 10 s after SIGKILL", p)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

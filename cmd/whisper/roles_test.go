package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestARoleRefusesAClusterOfOtherPartitions(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	got := whisper(t, nil, "intake", "--kafka="+b.addr, "--partitions=5", "--ops-addr=127.0.0.1:0", "--log-level=error")
	if got.code != exitError || strings.Count(got.stderr, "\n") != 1 || !strings.Contains(got.stderr, "start with --partitions 3") ||
		!strings.Contains(got.stderr, "more topics alike") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
}

func TestARoleSaysThatTopicsAreMissing(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	got := whisper(t, nil, "dispatch", "--kafka="+cluster.ListenAddrs()[0], "--ops-addr=127.0.0.1:0", "--log-level=error")
	if got.code != exitError || !strings.Contains(got.stderr, "run `whisper topics apply`") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
}

func TestWrongCredentialsStopARoleWithASentence(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "whisper", "right"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	// As Apache Kafka answers; kfake by itself only hangs up.
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	got := whisper(t, []string{"WHISPER_KAFKA_SASL_PASSWORD=wrong"}, "dispatch", "--kafka="+cluster.ListenAddrs()[0],
		"--kafka-sasl-mechanism=PLAIN", "--kafka-sasl-user=whisper", "--ops-addr=127.0.0.1:0", "--log-level=error")
	if got.code != exitError || !strings.Contains(got.stderr, "check kafka-sasl-user, kafka-sasl-password") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
}

// Before it waits for anything, a role logs what it is: who reads a log of a rolling update sees which version wrote it.
func TestEveryRoleLogsItsVersionWhenItStarts(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key.p8")
	if err := os.WriteFile(key, signingKey(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for role, args := range map[string][]string{
		"intake":   nil,
		"dispatch": nil,
		"gateway":  {"--node=n-1", "--listen=127.0.0.1:0", "--auth-secret=" + testSecret},
		"push":     {"--apns-key-file=" + key, "--apns-key-id=ABC123DEFG", "--apns-team-id=DEF123GHIJ", "--apns-topic=com.example.app"},
		"project":  nil,
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			args := append([]string{role, "--kafka=127.0.0.1:1", "--ops-addr=127.0.0.1:0", "--log-format=json"}, args...)
			_, stderr, stop := background(t, nil, args...)
			eventually(t, "it says what starts", func() bool {
				return strings.Contains(stderr.String(), `"msg":"starting","role":"`+role+`","version":"`)
			})
			if code := stop(); code != exitOK {
				t.Errorf("exit code %d: %s", code, stderr)
			}
		})
	}
}

// signingKey is a key as Apple gives it.
func signingKey(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// A role lives from the first moment, is ready when it is, and ends cleanly.
func TestTheLifeOfARole(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	// Nobody listens where the role looks for kafka, until a door is opened there.
	ops := freeAddr(t)
	kafka := freeAddr(t)
	_, stderr, stop := background(t, nil, "intake", "--kafka="+kafka, "--partitions=3", "--ops-addr="+ops, "--log-format=json")
	probe := func(path string) (int, string) {
		status, body, err := get(t, "http://"+ops+path)
		if err != nil {
			return 0, ""
		}
		return status, string(body)
	}
	eventually(t, "it says that it waits for kafka", func() bool {
		_, body := probe("/readyz")
		return strings.Contains(body, "waiting for kafka") && strings.Contains(stderr.String(), `"msg":"waiting for kafka"`)
	})
	if status, _ := probe("/livez"); status != http.StatusOK {
		t.Errorf("while it waits /livez answers %d", status)
	}
	openDoor(t, kafka, b.addr)
	eventually(t, "it is ready", func() bool { status, _ := probe("/readyz"); return status == http.StatusOK })
	if got := whisper(t, nil, "health", "--probe", "http://"+ops+"/readyz"); got.code != exitOK {
		t.Errorf("the probe's exit code is %d: %s", got.code, got.stderr)
	}
	eventually(t, "the log says that it is ready", func() bool { return strings.Contains(stderr.String(), `"msg":"ready"`) })
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if log := stderr.String(); !strings.Contains(log, `"msg":"starting","role":"intake","version":"`) || strings.Contains(log, `"next_try":250000000`) || !strings.Contains(log, `"next_try":"250ms"`) {
		t.Errorf("the log names no version, or durations by number: %s", log)
	}
	if got := whisper(t, nil, "health", "--probe", "http://"+ops+"/readyz"); got.code != exitError {
		t.Errorf("of a process that is gone the probe's exit code is %d", got.code)
	}
}

// openDoor hands on every connection to one address to another, until the test is over.
func openDoor(t *testing.T, from, to string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		open.Wait()
	})
	ctx := t.Context()
	open.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { handOn(ctx, in, to) })
		}
	})
}

// handOn returns when either end has hung up, or ctx has ended.
func handOn(ctx context.Context, in net.Conn, to string) {
	defer func() { _ = in.Close() }()
	out, err := new(net.Dialer).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	closeBoth := func() {
		_ = in.Close()
		_ = out.Close()
	}
	defer closeBoth()
	defer context.AfterFunc(ctx, closeBoth)()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(in, out)
		closeBoth()
	})
	_, _ = io.Copy(out, in)
	closeBoth()
	back.Wait()
}

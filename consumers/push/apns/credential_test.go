package apns

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push/apns/simulator"
	"github.com/klivvr/whisper/consumers/push/apps"
)

func write(t *testing.T, dir, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// certificate is one of its own, in PEM, that ends then.
func certificate(t *testing.T, end time.Time) []byte {
	t.Helper()
	key, _ := newKey(t)
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "old"}, NotBefore: end.Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// A file of credentials names what is wrong with each, by the fields of the file.
func TestBadCredentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, p8 := newKey(t)
	write(t, dir, "key.p8", p8)
	write(t, dir, "cert.pem", certificate(t, time.Now().Add(time.Hour)))
	write(t, dir, "old.pem", certificate(t, time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)))
	write(t, dir, "account.json", []byte(`{"type": "service_account"}`))
	write(t, dir, "apps.yaml", []byte(`apns:
  - {apps: [a], key_file: none.p8, key_id: K, team_id: T}
  - {apps: [b], key_file: cert.pem, key_id: K, team_id: T}
  - {apps: [c], key_file: account.json, key_id: K}
  - {apps: [d], key_file: key.p8, key_id: K, team_id: T, ca_file: old.pem, environment: moon, streams: 5000, request_timeout: -1s}
  - {apps: [e], key_file: key.p8, key_id: K, team_id: T, url: "http://127.0.0.1"}
`))
	_, err := apps.New(apps.Config{File: filepath.Join(dir, "apps.yaml"), Channels: []apps.Channel{InApps}, Metrics: metrics.NewSet()})
	if err == nil {
		t.Fatal("it is taken")
	}
	for _, want := range []string{
		"apps.yaml:2: apns a: key_file: open ", "apps.yaml:3: apns b: key_file: is a certificate, not a key",
		"apps.yaml:4: apns c: key_file: not a PEM file", "apps.yaml:4: apns c: team_id: missing",
		"apps.yaml:5: apns d: ca_file: the certificate of CN=old expired on 2020-01-02", `environment: unknown "moon"`,
		"streams: 5000 is not between 1 and 1000", "request_timeout: -1s is negative", `apps.yaml:6: apns e: url: "http://127.0.0.1" is not https`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

// Two teams in one process: each app is reached with its own key, and a refused one stops nobody else.
func TestTwoTeams(t *testing.T) {
	t.Parallel()
	dir, set := t.TempDir(), metrics.NewSet()
	file := ""
	var sims []*simulator.Simulator
	for _, team := range []string{"bank", "shop"} {
		key, p8 := newKey(t)
		write(t, dir, team+".p8", p8)
		sim, err := simulator.Start(t.Context(), simulator.Config{
			Key: &key.PublicKey, KeyID: "KEY", TeamID: team, Topics: []string{"com." + team}, CAFile: filepath.Join(dir, team+".pem"),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sim.Close)
		sims = append(sims, sim)
		file += "  - {apps: [com." + team + "], key_file: " + team + ".p8, key_id: KEY, team_id: " + team +
			", url: '" + sim.URL() + "', ca_file: " + team + ".pem}\n"
	}
	write(t, dir, "apps.yaml", []byte("apns:\n"+file))
	all, err := apps.New(apps.Config{File: filepath.Join(dir, "apps.yaml"), Channels: []apps.Channel{InApps}, Metrics: set})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.Close)
	p := all.Providers()[0]
	to := func(app string) string {
		attempt := attemptTo(device(1))
		attempt.App = app
		return p.Send(t.Context(), attempt).Reason
	}
	if a, b, c := to("com.bank"), to("com.shop"), to("com.none"); a != "" || b != "" || c != "no_credential" {
		t.Fatalf("got %q, %q, %q", a, b, c)
	}
	sims[0].Program("", 0, simulator.Answer{Status: 403, Reason: "InvalidProviderToken"})
	if a, again, b := to("com.bank"), to("com.bank"), to("com.shop"); a != "InvalidProviderToken" ||
		again != "stopped:InvalidProviderToken" || b != "" || p.Ready() != nil {
		t.Errorf("got %q, %q, %q; ready: %v", a, again, b, p.Ready())
	}
	stopped := func(app string) float64 {
		return set.GetOrCreateGauge(`whisper_push_credential_stopped{provider="apns",credential="`+app+`"}`, nil).Get()
	}
	if stopped("com.bank") != 1 || stopped("com.shop") != 0 {
		t.Errorf("stopped: %v, %v", stopped("com.bank"), stopped("com.shop"))
	}
}

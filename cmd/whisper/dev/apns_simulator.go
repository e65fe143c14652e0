package dev

import (
	"context"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers/push/apns/simulator"
)

// APNsSimulator is `whisper apns-simulator`: a simulated APNs.
type APNsSimulator struct {
	Addr    string        `default:"127.0.0.1:8443" placeholder:"HOST:PORT" help:"Where to listen (default ${default})."`
	CAFile  string        `name:"ca-file" placeholder:"FILE" help:"Write the certificate here that clients must trust (PEM); push takes it as --apns-ca-file."`
	KeyFile string        `name:"key-file" placeholder:"FILE" help:"Signing key (.p8), made here if there is none; push takes it as --apns-key-file."`
	Hosts   []string      `placeholder:"NAME" help:"More host names for its certificate."`
	Latency time.Duration `placeholder:"DURATION" help:"How long every answer takes (default: no delay)."`
}

// Help implements kong.HelpProvider.
func (c *APNsSimulator) Help() string {
	return `Speaks HTTP/2 like APNs, with its checks and answers; no devices are behind it. Example:

    whisper apns-simulator --ca-file ca.pem --key-file key.p8
    whisper push --apns-url https://127.0.0.1:8443 --apns-ca-file ca.pem --apns-key-file key.p8 --apns-key-id SIMULATOR1 --apns-team-id SIMULATOR2`
}

func (c *APNsSimulator) Check() error { return checkSimulator(c.Addr, c.Latency) }

func (c *APNsSimulator) Run(ctx context.Context, p *cli.Process) error {
	return simulator.Run(ctx, simulator.Config{
		Addr: c.Addr, Hosts: c.Hosts, CAFile: c.CAFile, KeyFile: c.KeyFile, Latency: c.Latency, Logger: p.Log, Now: p.Now,
	})
}

package dev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers/push/fcm/simulator"
)

// Simulate is `whisper simulate`: stand-ins for push providers.
type Simulate struct {
	APNs APNsSimulator `cmd:"" name:"apns" help:"Run a simulated APNs."`
	FCM  FCMSimulator  `cmd:"" name:"fcm" help:"Run a simulated FCM."`
}

// checkSimulator names the problems of the settings that all simulators have.
func checkSimulator(addr string, latency time.Duration) error {
	var errs []error
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		errs = append(errs, fmt.Errorf("addr: %q is not host:port", addr))
	}
	if latency < 0 {
		errs = append(errs, fmt.Errorf("latency: %s is negative", latency))
	}
	return errors.Join(errs...)
}

// FCMSimulator is `whisper simulate fcm`: a simulated FCM.
type FCMSimulator struct {
	Addr            string        `default:"127.0.0.1:8444" placeholder:"HOST:PORT" help:"Where to listen (default ${default})."`
	CAFile          string        `name:"ca-file" placeholder:"FILE" help:"Write the certificate here that clients must trust (PEM); push takes it as --fcm-ca-file."`
	CredentialsFile string        `name:"credentials-file" placeholder:"FILE" help:"Write a service account here; the key of one that is there is kept. Push takes it as --fcm-credentials-file."`
	Project         string        `default:"simulated" placeholder:"ID" help:"The only project that it knows (default ${default})."`
	Hosts           []string      `placeholder:"NAME" help:"More host names for its certificate; the first is that of the token endpoint."`
	Latency         time.Duration `placeholder:"DURATION" help:"How long every answer takes (default: no delay)."`
	Quota           int           `placeholder:"N" help:"Messages a minute (default: any number)."`
	DeviceQuota     int           `name:"device-quota" placeholder:"N" help:"Messages a minute to one device (default: any number)."`
}

// Help implements kong.HelpProvider.
func (c *FCMSimulator) Help() string {
	return `Speaks FCM's HTTP v1 API, with its checks, answers and quotas, and Google's token endpoint; no devices are behind it. Example:

    whisper simulate fcm --ca-file fcm.pem --credentials-file account.json
    whisper push --fcm-url https://127.0.0.1:8444 --fcm-ca-file fcm.pem --fcm-credentials-file account.json

A token that begins with gone-, bad-, foreign-, apple-, busy-, error-, down-, slow-, dead-, cut-, half- or goaway- gets that answer.
An outage for all other tokens, and its end:

    curl --cacert fcm.pem -d '{"status":503,"code":"UNAVAILABLE","retry_after":"30"}' https://127.0.0.1:8444/simulator/answers
    curl --cacert fcm.pem -X DELETE https://127.0.0.1:8444/simulator/answers`
}

func (c *FCMSimulator) Check() error {
	errs := []error{checkSimulator(c.Addr, c.Latency)}
	if c.Quota < 0 {
		errs = append(errs, fmt.Errorf("quota: %d is negative", c.Quota))
	}
	if c.DeviceQuota < 0 {
		errs = append(errs, fmt.Errorf("device-quota: %d is negative", c.DeviceQuota))
	}
	return errors.Join(errs...)
}

func (c *FCMSimulator) Run(ctx context.Context, p *cli.Process) error {
	return simulator.Run(ctx, simulator.Config{
		Addr: c.Addr, Hosts: c.Hosts, CAFile: c.CAFile, CredentialsFile: c.CredentialsFile, Project: c.Project, Latency: c.Latency,
		Quota: c.Quota, DeviceQuota: c.DeviceQuota, Logger: p.Log, Now: p.Now,
	})
}

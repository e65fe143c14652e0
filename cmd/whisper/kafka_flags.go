package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/klivvr/whisper/consumers"
)

// kafkaFlags say how to reach Kafka.
type kafkaFlags struct {
	Kafka              []string `default:"127.0.0.1:9092" placeholder:"HOST:PORT" help:"Brokers to start from (default 127.0.0.1:9092)."`
	KafkaSASLMechanism string   `name:"kafka-sasl-mechanism" placeholder:"NAME" help:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; none by default."`
	KafkaSASLUser      string   `name:"kafka-sasl-user" placeholder:"USER" help:"User for SASL."`
	KafkaSASLPassword  string   `name:"kafka-sasl-password" placeholder:"PASSWORD" help:"Password for SASL; better given in the environment, since others can see a command line."`
	KafkaTLS           bool     `name:"kafka-tls" help:"Use TLS; implied by the settings below."`
	KafkaTLSCA         string   `name:"kafka-tls-ca" placeholder:"FILE" help:"Certificates to trust instead of the system's (PEM)."`
	KafkaTLSCert       string   `name:"kafka-tls-cert" placeholder:"FILE" help:"Client certificate (PEM), together with --kafka-tls-key."`
	KafkaTLSKey        string   `name:"kafka-tls-key" placeholder:"FILE" help:"Key of the client certificate (PEM)."`
	KafkaTLSServerName string   `name:"kafka-tls-server-name" placeholder:"NAME" help:"Name to expect in the brokers' certificates, where it differs from their addresses."`
	KafkaAcceptLoss    bool     `name:"kafka-accept-loss" help:"Go on where retention has removed records before they were read, which is an error otherwise."`
}

// Check names every problem of these settings.
func (f kafkaFlags) Check() error {
	_, err := f.client("", nil)
	return err
}

// client is the configuration of every Kafka client in a process. id names it to the brokers.
func (f kafkaFlags) client(id string, log *slog.Logger) (consumers.ClientConfig, error) {
	var errs []error
	for _, addr := range f.Kafka {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("kafka: %q is not host:port", addr))
		}
	}
	if f.KafkaSASLMechanism != "" && (f.KafkaSASLUser == "" || f.KafkaSASLPassword == "") {
		errs = append(errs, errors.New("kafka-sasl-mechanism: needs kafka-sasl-user and kafka-sasl-password"))
	}
	if f.KafkaSASLMechanism == "" && (f.KafkaSASLUser != "" || f.KafkaSASLPassword != "") {
		errs = append(errs, errors.New("kafka-sasl-user: needs kafka-sasl-mechanism"))
	}
	tlsConfig, err := f.tls()
	errs = append(errs, err)
	cfg := consumers.ClientConfig{
		Brokers: f.Kafka, ClientID: id, TLS: tlsConfig,
		SASLMechanism: f.KafkaSASLMechanism, SASLUser: f.KafkaSASLUser, SASLPassword: f.KafkaSASLPassword,
		AcceptLoss: f.KafkaAcceptLoss, Logger: log,
	}
	return cfg, errors.Join(append(errs, cfg.Validate())...)
}

func (f kafkaFlags) tls() (*tls.Config, error) {
	if !f.KafkaTLS && f.KafkaTLSCA == "" && f.KafkaTLSCert == "" && f.KafkaTLSKey == "" && f.KafkaTLSServerName == "" {
		return nil, nil
	}
	cfg := &tls.Config{ServerName: f.KafkaTLSServerName, MinVersion: tls.VersionTLS12}
	var errs []error
	if f.KafkaTLSCA != "" {
		pem, err := os.ReadFile(f.KafkaTLSCA)
		cfg.RootCAs = x509.NewCertPool()
		if err != nil {
			errs = append(errs, fmt.Errorf("kafka-tls-ca: %w", err))
		} else if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			errs = append(errs, fmt.Errorf("kafka-tls-ca: %s has no PEM certificate", f.KafkaTLSCA))
		}
	}
	switch {
	case f.KafkaTLSCert != "" && f.KafkaTLSKey != "":
		pair, err := tls.LoadX509KeyPair(f.KafkaTLSCert, f.KafkaTLSKey)
		if err != nil {
			errs = append(errs, fmt.Errorf("kafka-tls-cert: %w", err))
		}
		cfg.Certificates = []tls.Certificate{pair}
	case f.KafkaTLSCert != "" || f.KafkaTLSKey != "":
		errs = append(errs, errors.New("kafka-tls-cert: a certificate and its key (kafka-tls-key) go together"))
	}
	return cfg, errors.Join(errs...)
}

// topologyFlags say how the topics are laid out. Every role needs them, since every role checks them.
type topologyFlags struct {
	Partitions      int32         `default:"96" placeholder:"N" help:"Partitions of every topic keyed by user id; can't be changed once the topics exist (default ${default})."`
	Replication     replication   `default:"auto" placeholder:"N" help:"Replication factor of the topics that are made (default ${default}: 3, or the number of brokers where they are fewer)."`
	MinISR          int           `name:"min-isr" placeholder:"N" help:"Replicas that must have a record before it counts as written (default: replication - 1, at least 1)."`
	DuplicateWindow time.Duration `default:"24h" placeholder:"DURATION" help:"How long ids are remembered to tell duplicates (default ${default}, at most 720h)."`
	Retention       time.Duration `default:"168h" placeholder:"DURATION" help:"How long requests, deliveries and facts are kept in Kafka (default ${default}); must outlast every outage."`
}

// replication is a replication factor; 0 is what the cluster can hold.
type replication int16

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *replication) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*r = 0
		return nil
	}
	n, err := strconv.ParseInt(string(text), 10, 16)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is not a replication factor: auto, or at least 1", text)
	}
	*r = replication(n)
	return nil
}

func (f topologyFlags) topology() consumers.Topology {
	return consumers.Topology{
		Partitions: f.Partitions, Replication: int16(f.Replication), MinISR: f.MinISR,
		DuplicateWindow: f.DuplicateWindow, Retention: f.Retention,
	}
}

// Check names every problem of these settings.
func (f topologyFlags) Check() error { return f.topology().Validate() }

// toolClient connects a tool that a person waits for: it says at once that Kafka does not answer,
// instead of waiting for it as roles do.
func (f kafkaFlags) toolClient(ctx context.Context, p *process) (consumers.ClientConfig, error) {
	cfg, err := f.client("whisper-cli", p.logger(slog.LevelError))
	if err != nil {
		return cfg, err
	}
	bounded, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	if err := cfg.Await(bounded); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// toolTimeout is how long a tool tries to reach what it talks to.
const toolTimeout = 5 * time.Second

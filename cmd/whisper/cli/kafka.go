package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/klivvr/whisper/consumers"
)

// KafkaFlags say how to reach Kafka.
type KafkaFlags struct {
	Kafka              []string `default:"127.0.0.1:9092" placeholder:"HOST:PORT" help:"Brokers to connect to first (default 127.0.0.1:9092)."`
	KafkaSASLMechanism string   `name:"kafka-sasl-mechanism" placeholder:"NAME" help:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; none by default."`
	KafkaSASLUser      string   `name:"kafka-sasl-user" placeholder:"USER" help:"User for SASL."`
	KafkaSASLPassword  string   `name:"kafka-sasl-password" placeholder:"PASSWORD" help:"Password for SASL; better set in the environment, because others can see a command line."`
	KafkaTLS           bool     `name:"kafka-tls" help:"Use TLS; implied by the flags below."`
	KafkaTLSCA         string   `name:"kafka-tls-ca" placeholder:"FILE" help:"Certificates to trust instead of the system's (PEM)."`
	KafkaTLSCert       string   `name:"kafka-tls-cert" placeholder:"FILE" help:"Client certificate (PEM), together with --kafka-tls-key."`
	KafkaTLSKey        string   `name:"kafka-tls-key" placeholder:"FILE" help:"Key of the client certificate (PEM)."`
	KafkaTLSServerName string   `name:"kafka-tls-server-name" placeholder:"NAME" help:"Name to expect in the brokers' certificates, if it differs from their addresses."`
	KafkaAcceptLoss    bool     `name:"kafka-accept-loss" help:"Continue where retention has removed records before they were read; otherwise that is an error."`
}

// Check names every problem of these settings.
func (f KafkaFlags) Check() error {
	_, err := f.Client("", nil)
	return err
}

// Client is the configuration of every Kafka client in a process. id names it to the brokers.
func (f KafkaFlags) Client(id string, log *slog.Logger) (consumers.ClientConfig, error) {
	var errs []error
	for _, addr := range f.Kafka {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("kafka: %q is not host:port", addr))
		}
	}
	if f.KafkaSASLMechanism != "" && (f.KafkaSASLUser == "" || f.KafkaSASLPassword == "") {
		errs = append(errs, errors.New("kafka-sasl-mechanism: needs a user and a password: give kafka-sasl-user and kafka-sasl-password"))
	}
	if f.KafkaSASLMechanism == "" && (f.KafkaSASLUser != "" || f.KafkaSASLPassword != "") {
		errs = append(errs, errors.New("kafka-sasl-user: needs a mechanism: give kafka-sasl-mechanism"))
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

func (f KafkaFlags) tls() (*tls.Config, error) {
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
		errs = append(errs, errors.New("kafka-tls-cert: a certificate needs its key: give kafka-tls-cert and kafka-tls-key together"))
	}
	return cfg, errors.Join(errs...)
}

// ToolClient connects a tool that a person waits for: it says at once that Kafka does not answer,
// instead of waiting for it as roles do.
func (f KafkaFlags) ToolClient(ctx context.Context, p *Process) (consumers.ClientConfig, error) {
	cfg, err := f.Client("whisper-cli", p.Logger(slog.LevelError))
	if err != nil {
		return cfg, err
	}
	bounded, cancel := context.WithTimeout(ctx, ToolTimeout)
	defer cancel()
	if err := cfg.Await(bounded); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// ToolTimeout is how long a tool tries to reach what it talks to.
const ToolTimeout = 5 * time.Second

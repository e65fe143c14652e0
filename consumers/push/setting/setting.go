// Package setting has what the settings of every provider have in common: how a problem is named, the server and its
// certificates, and the bounds of what a provider may use.
package setting

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// Names says how settings are called where they were given: by flags, which begin with the channel's name, or by the
// fields of the apps file.
type Names struct {
	Channel string
	File    bool // in the apps file
}

// Wrong is a problem of a setting, whose name is given as the flag has it behind the channel.
func (n Names) Wrong(setting, format string, args ...any) error {
	name := n.Channel + "-" + setting
	if n.File {
		name = strings.ReplaceAll(setting, "-", "_")
	}
	return fmt.Errorf(name+": "+format, args...)
}

// Server reads the address of a provider's server. "" gives no address, and no error.
func (n Names) Server(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || address != "" && (u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/") {
		return nil, n.Wrong("url", "%q is not https://host:port", address)
	}
	return u, nil
}

// Roots reads the certificates that are to be trusted instead of the system's, and returns them with the file's text.
func (n Names) Roots(file string) (*x509.CertPool, []byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, n.Wrong("ca-file", "%w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return roots, text, n.Wrong("ca-file", "has no certificate in PEM")
	}
	return roots, text, nil
}

// Bound is a number and what it may be.
type Bound struct {
	Setting         string
	Value, Min, Max int
}

// Bounds names every number that is not what it may be.
func (n Names) Bounds(all ...Bound) error {
	var errs []error
	for _, b := range all {
		if b.Value < b.Min || b.Value > b.Max {
			errs = append(errs, n.Wrong(b.Setting, "%d is not between %d and %d", b.Value, b.Min, b.Max))
		}
	}
	return errors.Join(errs...)
}

// Times names every one of a provider's times that is negative.
func (n Names) Times(request, rest, breakerRest time.Duration) error {
	var errs []error
	for _, t := range []struct {
		setting string
		value   time.Duration
	}{{"request-timeout", request}, {"rest", rest}, {"breaker-rest", breakerRest}} {
		if t.value < 0 {
			errs = append(errs, n.Wrong(t.setting, "%s is negative", t.value))
		}
	}
	return errors.Join(errs...)
}

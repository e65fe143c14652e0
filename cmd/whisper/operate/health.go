package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/ops"
)

// Health is `whisper health`: it asks a running Whisper for its health document.
type Health struct {
	URL    string `default:"http://127.0.0.1:8081/v1/health" placeholder:"URL" help:"Where the projector's operations port answers (default ${default})."`
	NoFail bool   `help:"Exit with 0 even if the document says degraded."`
	Probe  string `placeholder:"URL" help:"Only check that this URL answers 200, for a container's health check; exit with 1 if it does not."`
}

// Help implements kong.HelpProvider.
func (c *Health) Help() string {
	return `Prints the health document of project or dev. The exit code is 0 if it says healthy, 1 if it says degraded or nothing
answers, 2 if a flag is wrong. Examples:

    whisper health
    whisper health --no-fail | jq .queue_depths
    whisper health --probe http://127.0.0.1:8081/readyz`
}

func (c *Health) Check() error {
	return errors.Join(checkURL("url", c.URL), checkURL("probe", c.Probe))
}

func (c *Health) Run(ctx context.Context, p *cli.Process) error {
	ctx, cancel := context.WithTimeout(ctx, cli.ToolTimeout)
	defer cancel()
	target := c.URL
	if c.Probe != "" {
		target = c.Probe
	}
	status, body, err := fetch(ctx, target)
	if err != nil {
		return err
	}
	if _, err := p.Stdout.Write(body); err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s answers %d", target, status)
	}
	if c.Probe != "" || c.NoFail {
		return nil
	}
	return judgeHealth(body)
}

// judgeHealth is an error unless the document says healthy: a word that this program does not know is no reason to
// call a system well.
func judgeHealth(body []byte) error {
	var doc ops.Health
	if err := json.Unmarshal(body, &doc); err != nil || doc.Status == "" {
		return errors.New("the answer is not a health document: is this the operations port of project or dev?")
	}
	if doc.Status != ops.StatusHealthy {
		return fmt.Errorf("%s: %s", doc.Status, strings.Join(doc.Reasons, "; "))
	}
	return nil
}

// fetch reads at most a megabyte.
func fetch(ctx context.Context, target string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, body, err
}

func checkURL(setting, text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%s: %q is not an http:// or https:// URL", setting, text)
	}
	return nil
}

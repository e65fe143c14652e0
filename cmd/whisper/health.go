package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

type healthCmd struct {
	URL   string `default:"http://127.0.0.1:8081/v1/health" placeholder:"URL" help:"Where the projector's operations port answers (default ${default})."`
	Probe string `placeholder:"URL" help:"Only say whether this URL answers 200, for a container's health check: exit code 1 when it does not."`
}

// Help implements kong.HelpProvider.
func (c *healthCmd) Help() string {
	return `Examples:

    whisper health
    whisper health --probe http://127.0.0.1:8081/readyz`
}

func (c *healthCmd) Check() error {
	return errors.Join(checkURL("url", c.URL), checkURL("probe", c.Probe))
}

func (c *healthCmd) Run(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	target := c.URL
	if c.Probe != "" {
		target = c.Probe
	}
	status, body, err := get(ctx, target)
	if err != nil {
		return err
	}
	if _, err := p.stdout.Write(body); err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s answers %d", target, status)
	}
	return nil
}

// get reads at most a megabyte.
func get(ctx context.Context, target string) (status int, body []byte, err error) {
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

package main

import (
	"context"
	"fmt"

	"github.com/klivvr/whisper/cmd/whisper/cli"
)

type versionCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (c *versionCmd) Run(_ context.Context, p *cli.Process) error {
	doc := cli.ThisBuild()
	if c.JSON {
		return cli.PrintJSON(p.Stdout, doc)
	}
	_, err := fmt.Fprintf(p.Stdout, "whisper %s (%s, %s)\n", doc.Version, doc.Commit, doc.Go)
	return err
}

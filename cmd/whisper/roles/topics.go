package roles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
)

// Topics is `whisper topics`: it shows or makes the Kafka topics that Whisper needs.
type Topics struct {
	Plan  topicsPlanCmd  `cmd:"" help:"Show what apply would do."`
	Apply topicsApplyCmd `cmd:"" help:"Create missing topics and correct their settings; safe to repeat."`
}

type topicsFlags struct {
	Kafka cli.KafkaFlags `embed:"" group:"kafka"`
	Topic topologyFlags  `embed:"" group:"topics"`
	JSON  bool           `name:"json" help:"Print the plan as JSON."`
}

func (f topicsFlags) Check() error { return errors.Join(f.Kafka.Check(), f.Topic.Check()) }

type topicsPlanCmd struct {
	topicsFlags
}

func (c *topicsPlanCmd) Run(ctx context.Context, p *cli.Process) error {
	return c.do(ctx, p, false)
}

type topicsApplyCmd struct {
	topicsFlags
}

func (c *topicsApplyCmd) Run(ctx context.Context, p *cli.Process) error {
	return c.do(ctx, p, true)
}

func (f topicsFlags) do(ctx context.Context, p *cli.Process, apply bool) error {
	client, err := f.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	adm, err := client.Admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	plans, err := consumers.PlanTopics(ctx, adm, f.Topic.topology().Specs())
	if err != nil {
		return err
	}
	if err := printPlans(p.Stdout, plans, f.JSON); err != nil {
		return err
	}
	if !f.JSON && f.Topic.Replication == 0 {
		sayReplication(p.Stdout, plans)
	}
	if !apply {
		return nil
	}
	if err := consumers.ApplyTopics(ctx, adm, plans); err != nil {
		return err
	}
	if !f.JSON {
		_, _ = fmt.Fprintln(p.Stdout, "applied")
	}
	return nil
}

func printPlans(w io.Writer, plans []consumers.TopicPlan, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, plans)
	}
	same := 0
	for _, plan := range plans {
		switch {
		case plan.Conflict != "":
			_, _ = fmt.Fprintf(w, "! %s %s\n", plan.Name, plan.Conflict)
		case plan.Create != nil:
			_, _ = fmt.Fprintf(w, "+ %s: %d partitions, replication %d%s\n",
				plan.Name, plan.Create.Partitions, plan.Create.Replication, settingsText(plan.Create.Configs))
		case len(plan.Alter) > 0:
			_, _ = fmt.Fprintf(w, "~ %s%s\n", plan.Name, settingsText(plan.Alter))
		default:
			same++
		}
	}
	_, err := fmt.Fprintf(w, "%d of %d topics are as they should be\n", same, len(plans))
	return err
}

// sayReplication tells what was chosen for the topics that are to be made, and that it can be chosen otherwise.
func sayReplication(w io.Writer, plans []consumers.TopicPlan) {
	for _, plan := range plans {
		if plan.Create != nil {
			_, _ = fmt.Fprintf(w, "replication %d was chosen by the number of brokers that answer; --replication sets another\n",
				plan.Create.Replication)
			return
		}
	}
}

func settingsText(configs map[string]string) string {
	text := ""
	for _, key := range slices.Sorted(maps.Keys(configs)) {
		text += ", " + key + "=" + configs[key]
	}
	return text
}

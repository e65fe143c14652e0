package roles

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/apns"
	"github.com/klivvr/whisper/consumers/push/apps"
	"github.com/klivvr/whisper/consumers/push/channels"
	"github.com/klivvr/whisper/consumers/push/fcm"
	"github.com/klivvr/whisper/domain"
)

// Push is `whisper push`: it hands notifications to push providers.
type Push struct {
	Apps        string      `placeholder:"FILE" group:"push" help:"Credentials of many apps and channels, with secrets in files of their own; read again when it changes (docs/channels.md)."`
	Lanes       []string    `name:"push-lanes" placeholder:"LANE" group:"push" help:"Lanes to serve (default all)."`
	MaxInFlight int         `name:"push-max-in-flight" default:"${push_max_in_flight}" placeholder:"N" group:"push" help:"Attempts of one lane in progress at once (default ${default})."`
	APNs        apnsFlags   `embed:"" group:"apns"`
	FCM         fcmFlags    `embed:"" group:"fcm"`
	Member      memberFlags `embed:""`
	Role        roleFlags   `embed:""`
}

type apnsFlags struct {
	KeyFile        string        `name:"apns-key-file" placeholder:"FILE" help:"Apple's .p8 key file."`
	KeyID          string        `name:"apns-key-id" placeholder:"ID" help:"Id of the key, ten characters, as Apple's developer account shows it."`
	TeamID         string        `name:"apns-team-id" placeholder:"ID" help:"Id of the team, ten characters, in Apple's developer account under Membership."`
	Topic          string        `name:"apns-topic" placeholder:"ID" help:"The app's bundle id, for endpoints that name no app."`
	Environment    string        `name:"apns-environment" default:"${apns_environment}" placeholder:"NAME" help:"production or sandbox (default ${default})."`
	URL            string        `name:"apns-url" placeholder:"URL" help:"Another server instead of Apple's, such as a simulator."`
	CAFile         string        `name:"apns-ca-file" placeholder:"FILE" help:"Certificates to trust instead of the system's (PEM), for a simulator."`
	Connections    int           `name:"apns-connections" default:"${apns_connections}" placeholder:"N" help:"Most connections for each lane (default ${default})."`
	Streams        int           `name:"apns-streams" default:"${apns_streams}" placeholder:"N" help:"Requests in progress at once on one connection (default ${default})."`
	RequestTimeout time.Duration `name:"apns-request-timeout" default:"${apns_request_timeout}" placeholder:"DURATION" help:"Time limit of one request (default ${default})."`
	Sound          string        `name:"apns-sound" default:"${apns_sound}" placeholder:"NAME" help:"Sound of alerts on the lanes high and normal; none is silent (default ${default})."`
}

// given: the flags describe a credential.
func (f apnsFlags) given() bool {
	return f.KeyFile != "" || f.KeyID != "" || f.TeamID != "" || f.Topic != ""
}

func (f apnsFlags) config() apns.Config {
	return apns.Config{
		KeyFile: f.KeyFile, KeyID: f.KeyID, TeamID: f.TeamID, Topic: f.Topic, Environment: f.Environment,
		BaseURL: f.URL, RootCAFile: f.CAFile, Connections: f.Connections, Streams: f.Streams,
		RequestTimeout: f.RequestTimeout, Sound: f.Sound,
	}
}

type fcmFlags struct {
	CredentialsFile string        `name:"fcm-credentials-file" placeholder:"FILE" help:"A service account's key, as the Firebase console makes it (JSON)."`
	Project         string        `name:"fcm-project" placeholder:"ID" help:"The project, where the service account is another's (default: the account's)."`
	Target          string        `name:"fcm-target" default:"${fcm_target}" placeholder:"NAME" help:"Field that carries a device's address: token, which takes installation ids too, or fid (default ${default})."`
	DataCategories  []string      `name:"fcm-data-categories" placeholder:"CATEGORY" help:"Categories, with those below them, that the app shows itself: they go as data messages (default: none)."`
	ChannelID       string        `name:"fcm-channel-id" placeholder:"ID" help:"Android notification channel of everything (default: the name of the category)."`
	Sound           string        `name:"fcm-sound" default:"${fcm_sound}" placeholder:"NAME" help:"Sound on the lanes high and normal before Android 8; none is silent (default ${default})."`
	URL             string        `name:"fcm-url" placeholder:"URL" help:"Another server instead of Google's, such as a simulator."`
	CAFile          string        `name:"fcm-ca-file" placeholder:"FILE" help:"Certificates to trust instead of the system's (PEM), for a simulator."`
	PerMinute       int           `name:"fcm-per-minute" default:"${fcm_per_minute}" placeholder:"N" help:"This process's part of the project's quota, reached over a minute (default ${default})."`
	Connections     int           `name:"fcm-connections" default:"${fcm_connections}" placeholder:"N" help:"Most connections for each lane (default ${default})."`
	Streams         int           `name:"fcm-streams" default:"${fcm_streams}" placeholder:"N" help:"Requests in progress at once on one connection (default ${default})."`
	RequestTimeout  time.Duration `name:"fcm-request-timeout" default:"${fcm_request_timeout}" placeholder:"DURATION" help:"Time limit of one request (default ${default})."`
}

// given: the flags describe a credential.
func (f fcmFlags) given() bool { return f.CredentialsFile != "" || f.Project != "" }

func (f fcmFlags) config() fcm.Config {
	return fcm.Config{
		CredentialsFile: f.CredentialsFile, Project: f.Project, BaseURL: f.URL, RootCAFile: f.CAFile,
		Format:    fcm.Format{Target: f.Target, DataCategories: f.DataCategories, ChannelID: f.ChannelID, Sound: f.Sound},
		PerMinute: f.PerMinute, Connections: f.Connections, Streams: f.Streams, RequestTimeout: f.RequestTimeout,
	}
}

// Help implements kong.HelpProvider.
func (c *Push) Help() string {
	return `Hands attempts to push providers. For one app on Apple's push service (APNs):

    whisper push --apns-key-file key.p8 --apns-key-id ABC123DEFG --apns-team-id DEF123GHIJ --apns-topic com.example.app

For one project on Google's (FCM), alone or beside it:

    whisper push --fcm-credentials-file account.json

For more apps, teams or projects, --apps names a file of credentials. Flags beside it serve the apps that the file does
not name.`
}

func (c *Push) lanes() ([]domain.Lane, error) {
	var lanes []domain.Lane
	var errs []error
	for _, name := range c.Lanes {
		lane, err := domain.ParseLane(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("push-lanes: %w", err))
			continue
		}
		lanes = append(lanes, lane)
	}
	return lanes, errors.Join(errs...)
}

func (c *Push) Check() error {
	_, err := c.lanes()
	if c.MaxInFlight < 1 {
		err = errors.Join(err, fmt.Errorf("push-max-in-flight: %d is not a positive number", c.MaxInFlight))
	}
	if c.apple() {
		err = errors.Join(err, c.APNs.config().Validate())
	}
	if c.FCM.given() {
		err = errors.Join(err, c.FCM.config().Validate())
	}
	if c.Apps != "" { // the whole of it, so that one error names what is wrong with every credential
		set, problem := apps.New(apps.Config{File: c.Apps, Channels: channels.All(), Metrics: metrics.NewSet()})
		if err = errors.Join(err, problem); problem == nil {
			set.Close()
		}
	}
	return errors.Join(c.Role.Check(), c.Member.Check(), err)
}

// apple: there is to be a credential of APNs in the flags. Where nothing is given at all, its problems say what a credential needs.
func (c *Push) apple() bool { return c.APNs.given() || c.Apps == "" && !c.FCM.given() }

// providers makes what the flags and the apps file describe.
func (c *Push) providers(r Base) (*apps.Set, error) {
	var flags FlagCredentials
	if c.apple() {
		cfg := c.APNs.config()
		flags.APNs = &cfg
	}
	if c.FCM.given() {
		cfg := c.FCM.config()
		flags.FCM = &cfg
	}
	return r.Credentials(flags, apps.Config{File: c.Apps, Channels: channels.All()})
}

// FlagCredentials are those that no file names; nil: none. They serve the apps that the file does not name.
type FlagCredentials struct {
	APNs *apns.Config
	FCM  *fcm.Config
}

func (c *Push) Run(ctx context.Context, p *cli.Process) error {
	return c.Role.run(ctx, p, "push", func(_ context.Context, r Base) ([]Component, error) {
		lanes, err := c.lanes()
		if err != nil {
			return nil, err
		}
		r.Client = c.Member.of(r.Client)
		set, err := c.providers(r)
		if err != nil {
			return nil, err
		}
		return BuildPush(r, set, push.Config{Lanes: lanes, MaxInFlight: c.MaxInFlight})
	})
}

// Credentials makes the providers of a process.
func (r Base) Credentials(flags FlagCredentials, cfg apps.Config) (set *apps.Set, err error) {
	defer func() {
		if err != nil {
			for _, p := range cfg.Given {
				p.Close()
			}
		}
	}()
	if flags.APNs != nil {
		flags.APNs.Now, flags.APNs.Logger = r.Now, r.Log
		p, err := apns.New(*flags.APNs)
		if err != nil {
			return nil, err
		}
		cfg.Given = append(cfg.Given, p)
	}
	if flags.FCM != nil {
		flags.FCM.Now, flags.FCM.Logger = r.Now, r.Log
		p, err := fcm.New(*flags.FCM)
		if err != nil {
			return nil, err
		}
		cfg.Given = append(cfg.Given, p)
	}
	cfg.Now, cfg.Logger = r.Now, r.Log
	return apps.New(cfg)
}

// BuildPush builds the push role of each channel that has a credential. The providers, the roles and the publishers of their
// facts are one component, because they must stop in this order: the roles, the publishers, the providers. It closes set,
// also if it fails.
func BuildPush(r Base, set *apps.Set, cfg push.Config) ([]Component, error) {
	publisher, err := consumers.NewPublisher(r.Client, consumers.LingerBulk)
	if err != nil {
		set.Close()
		return nil, err
	}
	urgent, err := consumers.NewPublisher(r.Client.ForLane(domain.High), consumers.LingerBulk)
	if err != nil {
		publisher.Close()
		set.Close()
		return nil, err
	}
	cfg.Client, cfg.Now, cfg.Logger = r.Client, r.Now, r.Log
	cfg.Facts = consumers.FactsByLane{
		High: consumers.NewFacts(urgent, r.Topology.Partitions), Others: consumers.NewFacts(publisher, r.Topology.Partitions),
	}
	cfg.DeadLetters = consumers.NewDeadLetters(publisher, "push")
	var senders senders
	for _, provider := range set.Providers() {
		cfg.Provider = provider
		role, err := push.New(cfg)
		if err != nil {
			urgent.Close()
			publisher.Close()
			set.Close()
			return nil, err
		}
		senders = append(senders, role)
	}
	r.Server.Partitions("push", senders)
	run := func(ctx context.Context) error {
		defer set.Close()
		return publishing(ctx, publisher, func(ctx context.Context) error {
			return publishing(ctx, urgent, func(ctx context.Context) error { return senders.run(ctx, set) })
		})
	}
	ready := func() error { return errors.Join(senders.ready(), urgent.Ready(), publisher.Ready()) }
	return []Component{{"push", run, ready}}, nil
}

// senders are the roles of a process, one for each channel.
type senders []*push.Role

// run runs them while it follows the file of their credentials. An error in one ends all.
func (s senders) run(ctx context.Context, set *apps.Set) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, role := range s {
		g.Go(func() error { return role.Run(ctx) })
	}
	g.Go(func() error { return set.Run(ctx) })
	return g.Wait()
}

func (s senders) ready() error {
	var errs []error
	for _, role := range s {
		errs = append(errs, role.Ready())
	}
	return errors.Join(errs...)
}

// Stopped implements ops.Partitions.
func (s senders) Stopped() (all []consumers.Stopped) {
	for _, role := range s {
		all = append(all, role.Stopped()...)
	}
	return all
}

// Retry implements ops.Partitions.
func (s senders) Retry() (n int) {
	for _, role := range s {
		n += role.Retry()
	}
	return n
}

// flushTimeout bounds how long a stop waits for Kafka to acknowledge published records. The source of a record that is
// not acknowledged is not committed, so the record is made again.
const flushTimeout = 10 * time.Second

// publishing runs work together with the publisher it writes through. An error that ends the publisher ends the work. When
// the work is done, the publisher is flushed and closed.
func publishing(ctx context.Context, publisher *consumers.Publisher, work func(context.Context) error) error {
	defer publisher.Close()
	g, working := errgroup.WithContext(ctx)
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g.Go(func() error { return publisher.Run(writing) })
	g.Go(func() error {
		defer stop()
		err := work(working)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		return errors.Join(err, publisher.Flush(bounded))
	})
	return g.Wait()
}

package intake

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/requests"
	"github.com/klivvr/whisper/domain"
)

func newOutlet(c consumers.ClientConfig) (*requests.Outlet, error) {
	// At once: the way to the socket begins here.
	publisher, err := consumers.NewPublisher(c, 0)
	if err != nil {
		return nil, err
	}
	return requests.NewOutlet(publisher, "intake"), nil
}

// outlets are those of the lanes, and one more for what has no lane.
type outlets struct {
	lanes [len(domain.Lanes)]*requests.Outlet
	rest  *requests.Outlet
}

func newOutlets(c consumers.ClientConfig) (*outlets, error) {
	o := &outlets{}
	var err error
	for _, lane := range domain.Lanes {
		if o.lanes[lane], err = newOutlet(c.ForLane(lane)); err != nil {
			o.close()
			return nil, err
		}
	}
	if o.rest, err = newOutlet(c); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *outlets) all() (all []*requests.Outlet) {
	for _, out := range append(o.lanes[:], o.rest) {
		if out != nil {
			all = append(all, out)
		}
	}
	return all
}

func (o *outlets) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, out := range o.all() {
		g.Go(func() error { return out.Publisher.Run(ctx) })
	}
	return g.Wait()
}

func (o *outlets) ready() error {
	var errs []error
	for _, out := range o.all() {
		errs = append(errs, out.Publisher.Ready())
	}
	return errors.Join(errs...)
}

func (o *outlets) close() {
	for _, out := range o.all() {
		out.Publisher.Close()
	}
}

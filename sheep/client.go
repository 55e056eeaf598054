package sheep

import "context"

// A Client says who has sent a request, for people.
type Client struct {
	Kind string // "native", "nbd", "sheepfs", or "node" for a gateway that forwards
	Addr string // host:port, or "unix"
}

func (c Client) String() string {
	if c == (Client{}) {
		return "-"
	}
	return c.Kind + " " + c.Addr
}

type clientKey struct{}

// WithClient returns a context for the requests of c.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// ClientOf returns whose request ctx is for; false if no client waits for it.
func ClientOf(ctx context.Context) (Client, bool) {
	c, ok := ctx.Value(clientKey{}).(Client)
	return c, ok
}

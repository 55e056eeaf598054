package sheep

import "context"

type callerKey struct{}

// WithCaller returns ctx for the requests of somebody whose own context is caller.
// A request that has begun is finished though its caller has gone. One that still
// waits to begin is given up then: the caller may have sent it to another gateway
// meanwhile, and something newer after it, which it must not overwrite.
func WithCaller(ctx, caller context.Context) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// Caller returns the context of whoever waits for the request with the context ctx:
// ctx itself unless WithCaller has named another. Who waits before a request begins
// waits with it.
func Caller(ctx context.Context) context.Context {
	if caller, ok := ctx.Value(callerKey{}).(context.Context); ok {
		return caller
	}
	return ctx
}

// Begun returns ctx for the parts of a request that has begun.
func Begun(ctx context.Context) context.Context {
	if Caller(ctx) == ctx {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, nil)
}

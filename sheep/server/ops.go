package server

// scratch is what handlers keep in a request.
type scratch struct{}

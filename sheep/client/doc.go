// Package client talks to a sheep: dog, sheepfs and every other sheep use it.
//
// A Conn carries any number of requests at once over one connection. Requests
// are combined into few writes by whoever finds the socket idle; one goroutine
// per Conn reads the answers, hands each to the request that it belongs to, by
// sequence number, and lets large payloads go straight into the memory that the
// request brought along. In steady state a request allocates nothing here.
//
// A Pool keeps one Conn per peer, dialled when it is first needed and again,
// with growing pauses, after it broke; the two sheep tell each other who they
// are before anything else. Objects makes a Conn look like any other link of the
// request path.
//
// The package promises that every request ends exactly once, with an answer or
// with the error that broke the connection, and that the memory lent to it is
// untouched afterwards. A Conn and a Pool repeat nothing: whoever sent a request
// over a broken connection has to decide whether it may be sent twice. A Roaming
// decides that for the clients of a disk: it goes from a sheep that dies to
// another one, with what was not flushed and with the locks.
package client

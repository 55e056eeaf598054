package nbd

import (
	"context"
	"encoding/binary"
	"strings"
)

// contexts is a set of metadata contexts: bit i is allContexts[i], whose number
// on the wire is i+1.
type contexts uint8

// allContexts are what clients can ask block status about.
var allContexts = [...]struct {
	name   string
	status func(ExtentState) uint32
}{
	{contextBaseAlloc, func(s ExtentState) uint32 { return uint32(s & (ExtentHole | ExtentZero)) }},
	{contextSheepdog, func(s ExtentState) uint32 { return uint32(s&ExtentShared) >> 8 }},
}

// match returns the contexts that query selects. When they are only listed, a
// namespace alone stands for all of its contexts.
func match(query string, listing bool) (found contexts) {
	for i, m := range allContexts {
		namespace, _, _ := strings.Cut(m.name, ":")
		if query == m.name || listing && query == namespace+":" {
			found |= 1 << i
		}
	}
	return found
}

// A metaAsk is the data of LIST_META_CONTEXT and SET_META_CONTEXT: the name of
// an export, the number of queries, the queries; strings with their lengths in
// front.
type metaAsk struct {
	name    string
	queries int
	found   contexts
}

// decodeMeta returns false if data is not exactly a metaAsk with queries that
// have a namespace.
func decodeMeta(data []byte, listing bool) (metaAsk, bool) {
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 4 {
		return metaAsk{}, false
	}
	n := binary.BigEndian.Uint32(rest)
	if rest = rest[4:]; uint64(n)*4 > uint64(len(rest)) {
		return metaAsk{}, false
	}
	a := metaAsk{name: name, queries: int(n)}
	for range n {
		var query string
		if query, rest, ok = cutString(rest); !ok || !strings.Contains(query, ":") {
			return metaAsk{}, false
		}
		a.found |= match(query, listing)
	}
	if listing && n == 0 {
		a.found = 1<<len(allContexts) - 1
	}
	return a, len(rest) == 0
}

// metaOption lists or chooses metadata contexts.
func (c *conn) metaOption(ctx context.Context, opt uint32, data []byte) {
	if opt == optSetMeta {
		c.opts.contexts, c.opts.contextsOf = 0, "" // even if this fails
	}
	a, ok := decodeMeta(data, opt == optListMeta)
	switch {
	case !c.opts.structured:
		c.refuse(opt, repErrInvalid, "structured replies come first")
		return
	case !ok:
		c.refuse(opt, repErrInvalid, "the lengths do not add up, or a query has no namespace")
		return
	case !validName(a.name):
		c.refuse(opt, repErrInvalid, "the name is not good")
		return
	}
	if _, err := c.stat(ctx, a.name); err != nil {
		c.refuse(opt, optionError(err), err.Error())
		return
	}
	for i, m := range allContexts {
		if a.found&(1<<i) == 0 {
			continue
		}
		id := uint32(0)
		if opt == optSetMeta {
			id = uint32(i + 1)
		}
		c.respond(opt, repMetaContext, append(binary.BigEndian.AppendUint32(nil, id), m.name...))
	}
	if opt == optSetMeta {
		c.opts.contexts = a.found
		c.opts.contextsOf, _ = c.resolve(a.name)
	}
	c.respond(opt, repACK, nil)
}

package gossip

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// MinKey is the least length of a cluster's key, in bytes.
const MinKey = 16

// errNoKey is what a stranger gets, or somebody with another key.
var errNoKey = errors.New("the other side does not have this cluster's key")

// secrets are what a cluster's key implies. The zero value is no encryption.
type secrets struct {
	packets []byte      // seals gossip; nil without a key
	streams *tls.Config // for both ends of a connection; nil without a key
}

// newSecrets derives the secrets of a key; none if it is empty.
//
// The identity of the streams is an Ed25519 key pair derived from the cluster's
// key. TLS 1.3 makes both ends prove that they have its private part, and each
// compares the public part with its own: no authority, no names, no dates.
func newSecrets(key []byte) (secrets, error) {
	if len(key) == 0 {
		return secrets{}, nil
	}
	if len(key) < MinKey {
		return secrets{}, fmt.Errorf("the cluster's key has %d bytes, it needs at least %d", len(key), MinKey)
	}
	packets, err := hkdf.Key(sha256.New, key, nil, "sheepdog cluster packets 1", 32)
	if err != nil {
		return secrets{}, fmt.Errorf("derive keys: %w", err)
	}
	seed, err := hkdf.Key(sha256.New, key, nil, "sheepdog cluster streams 1", ed25519.SeedSize)
	if err != nil {
		return secrets{}, fmt.Errorf("derive keys: %w", err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	streams, err := streamConfig(private)
	if err != nil {
		return secrets{}, fmt.Errorf("derive keys: %w", err)
	}
	return secrets{packets: packets, streams: streams}, nil
}

func streamConfig(private ed25519.PrivateKey) (*tls.Config, error) {
	public := private.Public().(ed25519.PublicKey)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: private}},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection does it, with the one key that counts
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) != 1 {
				return errNoKey
			}
			other, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			if !ok || !bytes.Equal(other, public) {
				return errNoKey
			}
			return nil
		},
	}, nil
}

// client secures a connection that this side opened.
func (s secrets) client(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if s.streams == nil {
		return conn, nil
	}
	return handshake(ctx, tls.Client(conn, s.streams))
}

// server secures a connection that the other side opened.
func (s secrets) server(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if s.streams == nil {
		return conn, nil
	}
	return handshake(ctx, tls.Server(conn, s.streams))
}

func handshake(ctx context.Context, conn *tls.Conn) (net.Conn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w (%w)", errNoKey, err)
	}
	return conn, nil
}

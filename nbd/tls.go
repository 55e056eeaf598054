package nbd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// ServerTLS returns a configuration for Config.TLS from files in PEM. If ca is
// not empty, clients must show a certificate signed by one of the authorities
// in it. The files are looked at again whenever a client connects: changed ones
// hold from then on, unless they are bad, then the last good ones stay.
func ServerTLS(cert, key, ca string) (*tls.Config, error) {
	f := &tlsFiles{cert: cert, key: key, ca: ca}
	cfg, err := f.load()
	if err != nil {
		return nil, err
	}
	cfg = cfg.Clone()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.load() }
	return cfg, nil
}

// A tlsFiles loads a configuration from files, as often as they change.
type tlsFiles struct {
	cert, key, ca string

	mu     sync.Mutex
	stamp  [3]fileStamp // guarded by mu; of what cfg was made from, or bad ones were found as
	loaded *tls.Config  // guarded by mu; not changed once it is here
}

// A fileStamp tells two versions of a file apart.
type fileStamp struct {
	size int64
	time time.Time
}

// load returns the newest good configuration.
func (f *tlsFiles) load() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stamp := [3]fileStamp{stampOf(f.cert), stampOf(f.key), stampOf(f.ca)}
	if f.loaded != nil && stamp == f.stamp {
		return f.loaded, nil
	}
	cfg, err := readTLS(f.cert, f.key, f.ca)
	switch {
	case err == nil:
		f.loaded = cfg
	case f.loaded == nil:
		return nil, err
	}
	f.stamp = stamp
	return f.loaded, nil
}

func stampOf(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{info.Size(), info.ModTime()}
}

func readTLS(cert, key, ca string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("load TLS certificate: %w", err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if ca == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("load TLS authorities: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load TLS authorities from %s: %w", ca, errors.New("no certificate in it"))
	}
	// With ClientCAs, Go would tell clients the names of the authorities, and
	// with TLS 1.3 GnuTLS (QEMU, libnbd) then shows no certificate at all.
	cfg.ClientAuth = tls.RequireAnyClientCert
	cfg.VerifyConnection = func(s tls.ConnectionState) error { return verifyClient(s.PeerCertificates, roots) }
	return cfg, nil
}

// verifyClient returns nil if the first certificate is a client's and the others
// lead from it to one of roots.
func verifyClient(chain []*x509.Certificate, roots *x509.CertPool) error {
	if len(chain) == 0 {
		return errors.New("the client has shown no certificate")
	}
	opts := x509.VerifyOptions{
		Roots:         roots,
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(opts)
	return err
}

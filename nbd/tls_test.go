package nbd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sheepdog/nbd"
)

// An authority signs certificates for a test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.issue(t, "ca", nil)
	return a
}

// issue writes NAME.pem and NAME.key.
func (a *authority) issue(t *testing.T, name string, hosts []string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.next++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if a.cert == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		a.cert, a.key = c, k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if c.IsCA {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	writePEM(t, cert, "CERTIFICATE", der)
	writePEM(t, key, "PRIVATE KEY", pk)
	return cert, key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a *authority) server(t *testing.T, clientCA string) *tls.Config {
	t.Helper()
	cert, key := a.issue(t, "server", []string{"sheep"})
	cfg, err := nbd.ServerTLS(cert, key, clientCA)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// client returns the configuration of a client that trusts a, and shows the
// certificate of that name if there is one.
func (a *authority) client(t *testing.T, name string) *tls.Config {
	t.Helper()
	cfg := &tls.Config{ServerName: "sheep", RootCAs: x509.NewCertPool()}
	cfg.RootCAs.AddCert(a.cert)
	if name != "" {
		pair, err := tls.LoadX509KeyPair(a.issue(t, name, nil))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg
}

// secure puts TLS over a connection whose server has agreed to it.
func (c *client) secure(cfg *tls.Config) {
	c.t.Helper()
	c.option(optStartTLS, nil)
	c.reply(optStartTLS, repACK)
	c.Conn = tls.Client(c.Conn, cfg)
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	s := serve(t, twoDisks(), nbd.Config{TLS: a.server(t, ""), TLSRequire: true})
	c := s.hello(t)
	for _, opt := range []uint32{optList, optInfo, optGo, optStructured, optSetMeta, 99} {
		c.option(opt, ask("a"))
		c.reply(opt, errTLSReqd)
	}
	c.secure(a.client(t, ""))
	c.option(optStartTLS, nil)
	c.reply(optStartTLS, errInvalid)
	c.option(optGo, ask("a"))
	c.reply(optGo, repInfo)
	c.reply(optGo, repACK)
	for _, n := range []int{1, 5000, 1 << 20} {
		p := ramp(n)
		c.request(cmdWrite, 0, 0, uint32(n), p)
		if no := c.simple(0); no != 0 {
			t.Fatalf("write answers %d", no)
		}
		c.request(cmdRead, 0, 0, uint32(n))
		if got, err := c.data(0, n, false); err != nil || string(got) != string(p) {
			t.Errorf("%d bytes come back wrong: %v", n, err)
		}
	}
}

func TestTLSRequiredEndsExportName(t *testing.T) {
	a := newAuthority(t)
	c := serve(t, twoDisks(), nbd.Config{TLS: a.server(t, ""), TLSRequire: true}).hello(t)
	c.option(optExportName, []byte("a"))
	if rest := c.closed(); len(rest) > 0 {
		t.Errorf("answered with %x", rest)
	}
}

func TestTLSForgetsWhatWasNegotiatedBefore(t *testing.T) {
	a := newAuthority(t)
	c := serve(t, twoDisks(), nbd.Config{TLS: a.server(t, "")}).hello(t)
	c.option(optStructured, nil)
	c.reply(optStructured, repACK)
	c.option(optSetMeta, metaAsk("a", "base:allocation"))
	c.reply(optSetMeta, repMeta)
	c.reply(optSetMeta, repACK)
	c.secure(a.client(t, ""))
	c.option(optSetMeta, metaAsk("a", "base:allocation"))
	c.reply(optSetMeta, errInvalid)
	c.option(optExportName, []byte("a"))
	c.expect("0000000000100000 0d6d") // no DF
	c.request(cmdStatus, 0, 0, 512)
	if no := c.simple(0); no != eINVAL {
		t.Errorf("block status answers %d", no)
	}
}

func TestOptionsInjectedBehindStartTLSEndTheConnection(t *testing.T) {
	a := newAuthority(t)
	c := serve(t, twoDisks(), nbd.Config{TLS: a.server(t, "")}).hello(t)
	c.send([]byte("IHAVEOPT"), u32(optStartTLS), u32(0), []byte("IHAVEOPT"), u32(optList), u32(0))
	if rest := c.closed(); len(rest) > 0 {
		t.Errorf("answered with %x", rest)
	}
}

func TestClientCertificates(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	s := serve(t, twoDisks(), nbd.Config{TLS: a.server(t, filepath.Join(a.dir, "ca.pem")), TLSRequire: true})
	wolf := stranger.client(t, "wolf")
	wolf.RootCAs.AddCert(a.cert)
	for _, tc := range []struct {
		name string
		cfg  *tls.Config
		ok   bool
	}{
		{"signed by the authority", a.client(t, "dolly"), true},
		{"none", a.client(t, ""), false},
		{"signed by a stranger", wolf, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := s.hello(t)
			c.secure(tc.cfg)
			c.Write([]byte("IHAVEOPT\x00\x00\x00\x03\x00\x00\x00\x00"))
			_, err := c.Conn.Read(make([]byte, 20))
			if (err == nil) != tc.ok {
				t.Errorf("the list: %v", err)
			}
		})
	}
}

func TestChangedCertificatesHoldForNewClients(t *testing.T) {
	a := newAuthority(t)
	s := serve(t, twoDisks(), nbd.Config{TLS: a.server(t, "")})
	serial := func() int64 {
		c := s.hello(t)
		c.secure(a.client(t, ""))
		tc := c.Conn.(*tls.Conn)
		if err := tc.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		return tc.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	first := serial()
	cert, _ := a.issue(t, "server", []string{"sheep"})
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(cert, later, later); err != nil {
		t.Fatal(err)
	}
	second := serial()
	if second <= first {
		t.Errorf("certificate %d is still shown after %d came", first, second)
	}
	if err := os.WriteFile(cert, []byte("moth-eaten"), 0o600); err != nil {
		t.Fatal(err)
	}
	if third := serial(); third != second {
		t.Errorf("certificate %d is shown when the file is bad, want %d", third, second)
	}
}

func TestServerTLSRefusesBadFiles(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(t, "server", nil)
	for _, files := range [][3]string{{"/nowhere", key, ""}, {cert, cert, ""}, {cert, key, "/nowhere"}, {cert, key, key}} {
		if _, err := nbd.ServerTLS(files[0], files[1], files[2]); err == nil {
			t.Errorf("%v are taken", files)
		}
	}
}

var _ net.Conn = (*client)(nil)

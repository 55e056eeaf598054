package tests_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// An authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(template, nil, nil)
	return a
}

// sign makes a key and a certificate for it, signed by parent or by itself.
func (a *authority) sign(template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// issue writes what gnutls wants in a directory: ca-cert.pem and, for role
// server or client, its certificate and key.
func (a *authority) issue(role string, use x509.ExtKeyUsage) (dir string) {
	a.t.Helper()
	cert, key := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use},
	}, a.cert, a.key)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	dir = a.t.TempDir()
	for name, block := range map[string]*pem.Block{
		"ca-cert.pem":      {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		role + "-cert.pem": {Type: "CERTIFICATE", Bytes: cert.Raw},
		role + "-key.pem":  {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return dir
}

// TestNBDOverTLS requires TLS and client certificates of the clients, and turns
// away those that have none or others.
func TestNBDOverTLS(t *testing.T) {
	harness.Need(t, "nbdinfo", "qemu-img", "nbdcopy")
	ca := newAuthority(t, "ours")
	server, client := ca.issue("server", x509.ExtKeyUsageServerAuth), ca.issue("client", x509.ExtKeyUsageClientAuth)
	stranger := newAuthority(t, "theirs").issue("client", x509.ExtKeyUsageClientAuth)
	port := harness.FreePort(t)
	c := harness.New(t, harness.Config{Nodes: 1, Args: []string{
		"--nbd", port.String(), "--nbd-tls", "require", "--nbd-tls-cert", filepath.Join(server, "server-cert.pem"),
		"--nbd-tls-key", filepath.Join(server, "server-key.pem"), "--nbd-tls-ca", filepath.Join(server, "ca-cert.pem"),
	}})
	c.Nodes[0].Start()
	c.WaitJoined()
	c.Format(1)
	c.Dog("vdi", "create", "vol", "64M")

	uri := func(dir string) string { return fmt.Sprintf("nbds://%s/vol?tls-certificates=%s", port, dir) }
	if out := tool(t, "nbdinfo", uri(client)); !strings.Contains(out, "64M") || !strings.Contains(out, "TLS") {
		t.Errorf("nbdinfo: %s", out)
	}
	image := fileSystem(t, seed(t), 64<<20)
	tool(t, "nbdcopy", image, uri(client))
	opts := func(creds string) []string {
		s := fmt.Sprintf("driver=nbd,server.type=inet,server.host=127.0.0.1,server.port=%d,export=vol", port.Number)
		if creds == "" {
			return []string{"info", "--image-opts", s}
		}
		return []string{"info", "--object", "tls-creds-x509,id=tls0,endpoint=client,dir=" + creds, "--image-opts", s + ",tls-creds=tls0"}
	}
	if out := tool(t, "qemu-img", opts(client)...); !strings.Contains(out, "64 MiB") {
		t.Errorf("qemu-img info: %s", out)
	}
	same(t, "what came in over TLS", image, c.Dog("vdi", "read", "vol"))

	refused := func(what, name string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), harness.Need(t, name)[0], args...).CombinedOutput()
		if err == nil {
			t.Errorf("%s: %s came in:\n%s", what, name, out)
		}
	}
	refused("without TLS", "nbdinfo", fmt.Sprintf("nbd://%s/vol", port))
	refused("without TLS", "nbdinfo", "--list", fmt.Sprintf("nbd://%s", port))
	refused("without TLS", "qemu-img", opts("")...)
	refused("without a certificate", "nbdinfo", uri(server)) // it has none for clients
	refused("with the certificate of another authority", "nbdinfo", uri(stranger))
	refused("with the certificate of another authority", "qemu-img", opts(stranger)...)
	tool(t, "nbdinfo", uri(client))
}

// TestNBDOptionsThatMustNotStart starts sheep with NBD options that cannot work.
func TestNBDOptionsThatMustNotStart(t *testing.T) {
	c := harness.New(t, harness.Config{Nodes: 1})
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--nbd", busy.Addr().String()}, "address already in use"},
		{[]string{"--nbd", "unix:/nowhere/at/all/nbd.sock"}, "no such file or directory"},
		{[]string{"--nbd", "systemd"}, "systemd has passed no sockets"},
		{[]string{"--nbd", ":10809"}, "--nbd-insecure"},
		{[]string{"--nbd", "127.0.0.1:0", "--nbd-tls-cert", missing, "--nbd-tls-key", missing}, missing},
	} {
		n := c.Extra(t, 1)
		n.Args = tt.args
		n.Start()
		if code, err := n.Wait(patience); err != nil || code == 0 {
			t.Errorf("%q: status %d, %v", tt.args, code, err)
		}
		if log := n.Log(); !strings.Contains(log, tt.want) {
			t.Errorf("%q: the log lacks %q:\n%s", tt.args, tt.want, log)
		}
	}
}

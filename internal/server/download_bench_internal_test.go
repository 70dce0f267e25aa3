package server

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
)

// fetched is the size of what BenchmarkDownload has fetched.
const fetched = 64 << 20

// BenchmarkDownload is one artifact of 64 MB that a device fetches whole, over a connection that it keeps; one, or eight at the same time. Ours is a whole instance: its devices'
// listener with client certificates, and the one for clients of other systems, which a gateway on the same machine may call without TLS. Bare is http.ServeContent of a file with
// the same bytes, behind a listener of net/http's own. Whoever fetches runs on the same cores, and looks at nothing but the length after the first time.
func BenchmarkDownload(b *testing.B) {
	f := newPlain(b, 0)
	data := make([]byte, fetched)
	_, _ = rand.Read(data) // never fails
	a, err := f.inst.release.Upload(b.Context(), access.Internal("bench"), "pump", "app", false, bytes.NewReader(data))
	benchMust(b, err)
	f.publish("2.0.0", 3, a.Digest, a.Size)
	file := filepath.Join(b.TempDir(), "app")
	benchMust(b, os.WriteFile(file, data, 0o600))
	bare := func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(file)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	}
	devices := f.atWork(8)
	digest := hex.EncodeToString(a.Digest[:])
	client, token := f.admitted(b, "press-1")
	for _, line := range []struct {
		name, ours, bare, path, token string
		secure                        bool
	}{
		{"mtls", strings.TrimPrefix(f.url, "https://"), f.beside(b, true, bare), "/d/v1/artifact/" + digest, "", true},
		{"plain", f.others(b, true), f.beside(b, false, bare), "/pump/controller/v1/" + client + "/softwaremodules/" + digest + "/artifacts/app", token, false},
	} {
		for _, n := range []int{1, 8} {
			for _, who := range []struct{ name, address string }{{"ours", line.ours}, {"bare", line.bare}} {
				b.Run(line.name+"/"+strconv.Itoa(n)+"/"+who.name, func(b *testing.B) {
					lines := make([]*fetcher, n)
					for i := range lines {
						lines[i] = f.fetcher(b, who.address, line.path, line.token, devices[i], line.secure)
						if got := lines[i].digest(b); got != a.Digest {
							b.Fatalf("fetched %x, want %x", got, a.Digest)
						}
					}
					fetchMany(b, lines)
				})
			}
		}
	}
}

// others opens the listener of clients of other update systems.
func (w *load) others(b *testing.B, plain bool) (address string) {
	b.Helper()
	w.inst.cfg.Legacy = &Legacy{Listen: "127.0.0.1:0", Plain: plain}
	l, s, err := w.inst.listenLegacy(b.Context(), &ownCertificate{inst: w.inst, now: time.Now})
	benchMust(b, err)
	w.run(b, l, s)
	return l.Addr().String()
}

// admitted lets a client of hawkBit's protocol in.
func (w *load) admitted(b *testing.B, name string) (client, token string) {
	b.Helper()
	let, err := w.inst.legacy.Admit(b.Context(), access.Internal("bench"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: name})
	benchMust(b, err)
	return name, let.Token
}

// fetcher fetches one thing again and again.
type fetcher struct {
	conn    net.Conn
	reader  *bufio.Reader
	request []byte
	buf     []byte
}

func (w *load) fetcher(b *testing.B, address, path, token string, d *loadDevice, secure bool) *fetcher {
	b.Helper()
	var conn net.Conn
	var err error
	if secure {
		conn, err = (&tls.Dialer{Config: &tls.Config{Certificates: []tls.Certificate{d.idev}, RootCAs: w.roots}}).DialContext(b.Context(), "tcp", address)
	} else {
		conn, err = new(net.Dialer).DialContext(b.Context(), "tcp", address)
	}
	benchMust(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	request := "GET " + path + " HTTP/1.1\r\nHost: bench\r\n"
	if token != "" {
		request += "Authorization: TargetToken " + token + "\r\n"
	}
	return &fetcher{conn, bufio.NewReaderSize(conn, 64<<10), []byte(request + "\r\n"), make([]byte, 64<<10)}
}

// fetch gives what is fetched to w.
func (f *fetcher) fetch(w io.Writer) error {
	if _, err := f.conn.Write(f.request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(f.reader, nil)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{resp.Body}, f.buf)
	if err = errors.Join(err, resp.Body.Close()); err == nil && (resp.StatusCode != http.StatusOK || n != fetched) {
		err = fmt.Errorf("%s, %d bytes", resp.Status, n)
	}
	return err
}

func (f *fetcher) digest(b *testing.B) [32]byte {
	b.Helper()
	h := sha256.New()
	benchMust(b, f.fetch(h))
	return [32]byte(h.Sum(nil))
}

// fetchMany has b.N fetched by all of them.
func fetchMany(b *testing.B, lines []*fetcher) {
	var next atomic.Int64
	var all sync.WaitGroup
	b.SetBytes(fetched)
	begun := processorTime(b)
	b.ResetTimer()
	for _, f := range lines {
		all.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := f.fetch(io.Discard); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64((processorTime(b)-begun).Nanoseconds())/1e6/float64(b.N), "cpu-ms/op")
}

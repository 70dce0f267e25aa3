// Package peers measures other transparency logs with the entries that ours is measured with. It is a module of its own, so that the
// product depends on none of them.
package peers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"
)

const (
	entrySize = 300
	writers   = 128 // for each processor, as in BenchmarkAppend of internal/store
)

// BenchmarkTesseraPOSIX is entries a second, each writer waiting until its entry is durable and has its place, many writers at once.
func BenchmarkTesseraPOSIX(b *testing.B) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // what it says would break the line of the result
	ctx := context.Background()
	driver, err := posix.New(ctx, posix.Config{Path: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	key, _, err := note.GenerateKey(rand.Reader, "peers.example")
	if err != nil {
		b.Fatal(err)
	}
	signer, err := note.NewSigner(key)
	if err != nil {
		b.Fatal(err)
	}
	log, shutdown, _, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().WithCheckpointSigner(signer).WithBatching(256, 50*time.Millisecond).WithPushback(1<<16))
	if err != nil {
		b.Fatal(err)
	}
	var n atomic.Uint64
	b.SetParallelism(writers)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			data := make([]byte, entrySize)
			binary.BigEndian.PutUint64(data, n.Add(1))
			if _, err := log.Add(ctx, tessera.NewEntry(data))(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "facts/s")
	b.StopTimer()
	if err := shutdown(ctx); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRekorTiles is entries a second over HTTP: the server verifies a signature, and answers when a checkpoint has the entry.
func BenchmarkRekorTiles(b *testing.B) {
	url := startRekor(b)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	requests := make([][]byte, b.N)
	for i := range requests {
		requests[i] = hashedRekord(b, key, i)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	var next atomic.Int64
	b.SetParallelism(writers)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Post(url, "application/json", bytes.NewReader(requests[next.Add(1)-1]))
			if err != nil {
				b.Error(err)
				return
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
				b.Errorf("%s: %.300s, %v", resp.Status, body, err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "facts/s")
}

func hashedRekord(b *testing.B, key *ecdsa.PrivateKey, i int) []byte {
	b.Helper()
	artifact := make([]byte, entrySize)
	binary.BigEndian.PutUint64(artifact, uint64(i))
	_, _ = rand.Read(artifact[8:])
	digest := sha256.Sum256(artifact)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		b.Fatal(err)
	}
	type object = map[string]any
	out, err := json.Marshal(object{"hashedRekordRequestV002": object{
		"digest": digest[:],
		"signature": object{
			"content":  sig,
			"verifier": object{"key_details": "PKIX_ECDSA_P256_SHA_256", "public_key": object{"raw_bytes": spki}},
		},
	}})
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// startRekor runs the real server over a directory, until the benchmark ends.
func startRekor(b *testing.B) (url string) {
	b.Helper()
	dir := b.TempDir()
	bin := filepath.Join(dir, "rekor-server")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix").CombinedOutput(); err != nil {
		b.Fatalf("build rekor-tiles: %v\n%s", err, out)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.Fatal(err)
	}
	pemFile := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(pemFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		b.Fatal(err)
	}
	ports := freePorts(b, 3)
	cmd := exec.Command(bin, "serve", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--hostname=peers.example",
		"--storage-dir="+filepath.Join(dir, "log"), "--signer-filepath="+pemFile, "--checkpoint-interval=200ms", "--batch-max-age=50ms", "--log-level=error",
		fmt.Sprint("--http-port=", ports[0]), fmt.Sprint("--grpc-port=", ports[1]), fmt.Sprint("--http-metrics-port=", ports[2]))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	base := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	for range 200 {
		if resp, err := http.Get(base + "/healthz"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return base + "/api/v2/log/entries"
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Fatalf("rekor-tiles does not answer: %s", said.String())
	return ""
}

func freePorts(b *testing.B, n int) []int {
	b.Helper()
	out := make([]int, n)
	for i := range out {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		out[i] = l.Addr().(*net.TCPAddr).Port
		defer l.Close()
	}
	return out
}

package console_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/genuine"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
)

// shelf is a registry with the known device in it, whose words are hostile.
type shelf struct{ asked map[string]genuine.Question }

func (shelf) GenuineRecord(_ context.Context, id string) (genuine.Record, error) {
	if id != known {
		return genuine.Record{}, nil
	}
	return genuine.Record{
		Known: true, Product: "pump " + script, Support: time.Now().AddDate(2, 0, 0), Text: map[genuine.Word]string{genuine.Rekeyed: script}, Rekeyed: then,
		Device: device.Device{
			ID: id, Product: "pump", State: device.Active, Legitimacy: device.Genuine, Made: then, Order: "order-" + digest, Group: "secret/group",
			Station: "secret station", LastSeen: time.Now(), AttestKey: []byte{1},
		},
	}, nil
}

func (shelf) GenuineVersion(context.Context, string) (uint64, error) { return 1, nil }

func (s shelf) AskDevice(_ context.Context, q genuine.Question, _ time.Time, _ int) error {
	if len(s.asked) > 0 {
		return genuine.ErrBusy
	}
	s.asked[q.ID] = q
	return nil
}

func (s shelf) Question(_ context.Context, id string) (genuine.Question, error) {
	q, ok := s.asked[id]
	if !ok {
		return q, genuine.ErrNotFound
	}
	return q, nil
}

func (shelf) OpenQuestions(context.Context, time.Time, int) ([]genuine.Question, error) {
	return nil, nil
}

func (shelf) AnswerQuestion(context.Context, genuine.Question) error { return nil }

func (shelf) Latest(context.Context, ledger.Log) (ledger.Published, error) {
	return ledger.Published{}, errors.New("nothing is witnessed")
}

func (shelf) Path(context.Context, ledger.Ref, ledger.Published) ([32]byte, [][]byte, error) {
	return [32]byte{}, nil, errors.New("nothing is witnessed")
}

// strangers gives what answers strangers, and the fingerprint of its root.
func strangers(t *testing.T) (*genuine.Service, [32]byte) {
	t.Helper()
	key := func() crypto.Signer {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	now, infraKey, verdictKey := time.Now(), key(), key()
	root, err := pki.NewRoot("acme", key(), now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := root.Sub(profile.Infra, pki.Name{OEM: "acme"}, infraKey.Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	infra, err := pki.NewAuthority(profile.Infra, cert, infraKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := infra.VerdictSigner(verdictKey.Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	s := shelf{asked: map[string]genuine.Question{}}
	g, err := genuine.New(genuine.Config{Store: s, Ledger: s, Maker: "acme", Signer: func(time.Time) (crypto.Signer, [][]byte, error) {
		return verdictKey, [][]byte{leaf.Raw, cert.Raw, root.Cert.Raw}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return g, sha256.Sum256(root.Cert.Raw)
}

func TestAStrangerLearnsOnlyWhetherItIsGenuine(t *testing.T) {
	s := server(t)
	resp, _ := get(t, s, "/genuine?id=00BB-00bb-00bb-00bb-00bb-00bb-00bb-00bb", "")
	if resp.StatusCode != 303 || resp.Header.Get("Location") != "/g/"+known {
		t.Errorf("%d to %s: an ID as people write it is not taken", resp.StatusCode, resp.Header.Get("Location"))
	}
	resp, page := get(t, s, "/g/"+known, "")
	if resp.StatusCode != 200 || !strings.Contains(page, "<title>Genuine: device 00bb00bb00bb") || !strings.Contains(page, "pump") || !strings.Contains(page, "Got new keys in the field") {
		t.Errorf("%d: a genuine device is not called so", resp.StatusCode)
	}
	for _, secret := range []string{"secret", "<script>alert", digest} {
		if strings.Contains(page, secret) {
			t.Errorf("a stranger learns %q", secret)
		}
	}
	if _, page := get(t, s, "/g/"+strings.Repeat("0", 32), ""); !strings.Contains(page, "<title>Unknown: device") || strings.Contains(page, "Ask the device") {
		t.Error("a device that nobody knows is not unknown")
	}
	if _, page := get(t, s, "/genuine?id=x", ""); !strings.Contains(page, "That is no device ID") {
		t.Error("what is no ID is looked up")
	}
	_, file := get(t, s, "/g/"+known+"/verdict", "")
	if g, err := wire.OpenGenuine([]byte(file), s.root); err != nil || g.Headline != "genuine" || g.Device != known {
		t.Errorf("the file is %+v, %v", g, err)
	}
	if _, err := wire.OpenGenuine([]byte(file), [32]byte{1}); !errors.Is(err, wire.ErrRoot) {
		t.Errorf("by another root: %v", err)
	}
}

func TestAStrangerHasTheDeviceAsked(t *testing.T) {
	s := server(t)
	ask := func() *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/g/"+known+"/ask", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	resp := ask()
	to := resp.Header.Get("Location")
	if resp.StatusCode != 303 || !strings.HasPrefix(to, "/g/"+known+"?question=") {
		t.Fatalf("%d to %q", resp.StatusCode, to)
	}
	if resp, page := get(t, s, to, ""); resp.Header.Get("Refresh") == "" || !strings.Contains(page, "will be asked when it next calls") {
		t.Errorf("a question under way is not shown as such")
	}
	if resp := ask(); resp.StatusCode != 503 {
		t.Errorf("a second question at once: %d", resp.StatusCode)
	}
}

func TestAStrangerMayNotAskWithoutEnd(t *testing.T) {
	s := server(t)
	s.curbed = true
	for _, path := range []string{"/g/" + known, "/g/" + known + "/verdict"} {
		if resp, page := get(t, s, path, ""); resp.StatusCode != http.StatusTooManyRequests || strings.Contains(page, "<title>Genuine: device 00bb00bb00bb") {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

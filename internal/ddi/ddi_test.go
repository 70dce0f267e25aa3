package ddi_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/legacytest"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// rhu is rauc-hawkbit-updater as its source has it: what it does not expect is an error.
type rhu struct {
	w          *legacytest.World
	name, auth string
}

type rhuBase struct {
	Config struct {
		Polling struct{ Sleep string }
	}
	Links map[string]struct{ Href string } `json:"_links"`
}

func (c rhu) path(href string) string { return strings.TrimPrefix(href, c.w.Base) }

func (c rhu) poll() rhuBase {
	c.w.T.Helper()
	status, body, _ := c.w.Call(http.MethodGet, "/"+legacytest.Tenant+"/controller/v1/"+c.name, c.auth, "")
	var b rhuBase
	if err := json.Unmarshal(body, &b); err != nil || status != http.StatusOK || len(b.Config.Polling.Sleep) != 8 {
		c.w.T.Fatalf("poll: %d %s %v", status, body, err)
	}
	return b
}

// offered waits until there is something to install, and gives its address.
func (c rhu) offered() string {
	c.w.T.Helper()
	var href string
	c.w.Until(c.name+" is offered something", func() (bool, string) {
		href = c.poll().Links["deploymentBase"].Href
		return href != "", ""
	})
	return c.path(href)
}

// errRHU is what it gives up with.
var errRHU = errors.New("rauc-hawkbit-updater gives up")

// deployment reads what is to be installed: exactly one chunk, with exactly one artifact, that has a SHA-1.
func (c rhu) deployment(path string) (id, file, sha string, size int64, err error) {
	c.w.T.Helper()
	status, body, _ := c.w.Call(http.MethodGet, path, c.auth, "")
	var d struct {
		ID         string
		Deployment struct {
			Download, Update string
			Chunks           []struct {
				Artifacts []struct {
					Filename string
					Hashes   map[string]string
					Size     int64
					Links    map[string]struct{ Href string } `json:"_links"`
				}
			}
		}
	}
	if json.Unmarshal(body, &d) != nil || status != http.StatusOK {
		return "", "", "", 0, fmt.Errorf("%w: %d %s", errRHU, status, body)
	}
	if len(d.Deployment.Chunks) != 1 || len(d.Deployment.Chunks[0].Artifacts) != 1 {
		return "", "", "", 0, fmt.Errorf("%w: deployment %s unsupported: %d chunks", errRHU, d.ID, len(d.Deployment.Chunks))
	}
	a := d.Deployment.Chunks[0].Artifacts[0]
	if len(a.Hashes["sha1"]) != 40 {
		return "", "", "", 0, fmt.Errorf("%w: no sha1", errRHU)
	}
	href := a.Links["download"].Href
	if href == "" {
		href = a.Links["download-http"].Href
	}
	return d.ID, c.path(href), a.Hashes["sha1"], a.Size, nil
}

// feedback says something, with the ID as a text; whatever is not 200 is a failure, 409 and 429 being tried again.
func (c rhu) feedback(id, execution, finished, details string) error {
	c.w.T.Helper()
	body := fmt.Sprintf(`{"id":"%s","time":"20260711T101522","status":{"execution":"%s","result":{"finished":"%s","progress":{"cnt":1,"of":0}},"details":["%s"]},"unknown":[1]}`, id, execution, finished, details)
	for {
		status, got, _ := c.w.Call(http.MethodPost, "/"+legacytest.Tenant+"/controller/v1/"+c.name+"/deploymentBase/"+id+"/feedback", c.auth, body)
		switch status {
		case http.StatusOK:
			return nil
		case http.StatusConflict, http.StatusTooManyRequests:
		default:
			return fmt.Errorf("%w: %d %s", errRHU, status, got)
		}
	}
}

func (c rhu) config(version string) {
	c.w.T.Helper()
	status, body, _ := c.w.Call(http.MethodPut, "/"+legacytest.Tenant+"/controller/v1/"+c.name+"/configData", c.auth,
		`{"mode":"merge","id":"","time":"20260711T101522","status":{"execution":"closed","result":{"finished":"success"},"details":[]},"data":{"`+legacy.VersionAttribute+`":"`+version+`"}}`)
	if status != http.StatusOK {
		c.w.T.Fatalf("configData: %d %s", status, body)
	}
}

// installs does what it does with an offer, until just before the restart.
func (c rhu) installs(path string) {
	c.w.T.Helper()
	id, file, sha, size, err := c.deployment(path)
	c.w.Must(err)
	c.w.Must(c.feedback(id, "proceeding", "none", "Starting download."))
	half := size / 2
	status, first, _ := c.w.Call(http.MethodGet, file, c.auth, "", "Range", fmt.Sprintf("bytes=0-%d", half-1))
	if status != http.StatusPartialContent {
		c.w.T.Fatalf("the first half: %d", status)
	}
	status, rest, _ := c.w.Call(http.MethodGet, file, c.auth, "", "Range", fmt.Sprintf("bytes=%d-", half))
	if status != http.StatusPartialContent {
		c.w.T.Fatalf("the rest: %d", status)
	}
	if sum := sha1.Sum(append(first, rest...)); hex.EncodeToString(sum[:]) != sha {
		c.w.T.Fatal("its checksum is another")
	}
	if status, _, _ := c.w.Call(http.MethodGet, file, c.auth, "", "Range", fmt.Sprintf("bytes=%d-", size)); status != http.StatusRequestedRangeNotSatisfiable {
		c.w.T.Fatalf("beyond the end: %d, which it does not take for complete", status)
	}
	c.w.Must(c.feedback(id, "proceeding", "none", "Download complete. 1.00 MB/s"))
	c.w.Must(c.feedback(id, "closed", "success", "Software bundle installed successfully."))
}

func TestRaucHawkbitUpdater(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	id, token := w.Admit(legacy.Admission{Name: "door-1"})
	c := rhu{w, "door-1", "TargetToken " + token}
	bundle := append([]byte("hsqs"), bytes.Repeat([]byte("rauc bundle "), 10_000)...)
	old := w.Publish("1.0.0", "bundle", append([]byte("hsqs"), "old"...))
	next := w.Publish("1.1.0", "bundle", bundle, old)
	if c.poll().Links["configData"].Href == "" {
		t.Fatal("it is not asked what it is")
	}
	c.config("1.0.0")
	if _, asked := c.poll().Links["configData"]; asked {
		t.Fatal("it is asked what it is after it said so")
	}
	w.Roll("r1", next, id)
	path := c.offered()
	if !strings.Contains(path, "?c=") {
		t.Errorf("its address %s does not change with what it leads to", path)
	}
	_, file, _, _, err := c.deployment(path)
	w.Must(err)
	if !strings.HasSuffix(file, "/bundle.raucb") {
		t.Errorf("the file is %s", file)
	}
	c.installs(path)
	// hawkbit#3185: it says so before its restart, and runs the old one still.
	w.Until("it is asked what it runs", func() (bool, string) { _, ok := c.poll().Links["configData"]; return ok, "" })
	c.config("1.0.0")
	r, err := w.People["olga"].Rollout(t.Context(), "r1")
	w.Must(err)
	if r.Rollout.Phase != rollout.Running || r.Rollout.Last.Good != 0 {
		t.Fatalf("a device that runs the old one counts: %+v", r.Rollout)
	}
	w.Until("it is asked again", func() (bool, string) { _, ok := c.poll().Links["configData"]; return ok, "" })
	c.config("1.1.0")
	w.Rolled("r1", rollout.Completed)
	if _, asked := c.poll().Links["configData"]; asked {
		t.Error("it is asked what it runs after it said so")
	}
	// A file too many, and it gives up; so one release has one bundle for it.
	if _, _, _, _, err := c.deployment(path); !errors.Is(err, errRHU) {
		t.Errorf("an action that has ended: %v", err)
	}
}

func TestBytesOfAnArtifact(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	id, token := w.Admit(legacy.Admission{Name: "door-1"})
	_, other := w.Admit(legacy.Admission{Name: "door-2"})
	c := rhu{w, "door-1", "TargetToken " + token}
	data := bytes.Repeat([]byte("0123456789"), 1000)
	next := w.Publish("1.1.0", "bundle.bin", data)
	c.config("1.0.0")
	w.Roll("r1", next, id)
	_, file, _, size, err := c.deployment(c.offered())
	w.Must(err)
	if size != int64(len(data)) {
		t.Fatalf("size %d", size)
	}
	before := told(w, id)
	status, body, h := w.Call(http.MethodGet, file, c.auth, "")
	sum := sha256.Sum256(data)
	etag := `"` + hex.EncodeToString(sum[:]) + `"`
	if status != http.StatusOK || !bytes.Equal(body, data) || h.Get("ETag") != etag || h.Get("Accept-Ranges") != "bytes" {
		t.Fatalf("%d, %d bytes, %v", status, len(body), h)
	}
	if status, body, h := w.Call(http.MethodHead, file, c.auth, ""); status != http.StatusOK || len(body) != 0 || h.Get("Content-Length") != "10000" {
		t.Errorf("HEAD: %d %d bytes %v", status, len(body), h)
	}
	five := md5.Sum(data)
	if status, body, _ := w.Call(http.MethodGet, file+".MD5SUM", c.auth, ""); status != http.StatusOK || string(body) != hex.EncodeToString(five[:])+"  bundle.bin" {
		t.Errorf("MD5SUM: %d %q", status, body)
	}
	for _, x := range []struct {
		what, ranges, validator string
		status                  int
		body                    string
	}{
		{"a range", "bytes=5-9", "", 206, "56789"},
		{"the end", "bytes=-3", "", 206, "789"},
		{"of the same", "bytes=5-9", etag, 206, "56789"},
		{"of what it was once", "bytes=5-9", `"00"`, 200, string(data)},
		{"beyond", "bytes=10000-", "", 416, "invalid range: failed to overlap\n"},
		{"nonsense", "lines=1-2", "", 416, "invalid range\n"},
		{"too many parts", "bytes=" + strings.Repeat("0-0,", 100) + "1-1", "", 200, string(data)},
	} {
		header := []string{"Range", x.ranges}
		if x.validator != "" {
			header = append(header, "If-Range", x.validator)
		}
		if status, body, _ := w.Call(http.MethodGet, file, c.auth, "", header...); status != x.status || string(body) != x.body {
			t.Errorf("%s: %d, %d bytes %.40q, want %d", x.what, status, len(body), body, x.status)
		}
	}
	status, body, h = w.Call(http.MethodGet, file, c.auth, "", "Range", "bytes=0-1,9998-9999")
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if status != 206 || err != nil || kind != "multipart/byteranges" {
		t.Fatalf("two ranges: %d %s %v", status, kind, err)
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for _, want := range []string{"01", "89"} {
		p, err := parts.NextPart()
		w.Must(err)
		if got, err := io.ReadAll(p); err != nil || string(got) != want {
			t.Errorf("part %q, want %q: %v", got, want, err)
		}
	}
	// hawkbit#1249: nothing is kept of who read which bytes.
	if now := told(w, id); now != before {
		t.Errorf("the log's newest about it was %s, and is %s", before, now)
	}
	for what, x := range map[string][2]string{
		"nobody": {"", file}, "a wrong token": {"TargetToken x", file}, "another's token": {"TargetToken " + other, file},
		"a gateway's that there is none of": {"GatewayToken " + token, file},
	} {
		if status, _, _ := w.Call(http.MethodGet, x[1], x[0], ""); status != http.StatusUnauthorized {
			t.Errorf("%s: %d", what, status)
		}
	}
	if status, _, _ := w.Call(http.MethodGet, strings.Replace(file, hex.EncodeToString(sum[:]), strings.Repeat("0", 64), 1), c.auth, ""); status != http.StatusNotFound {
		t.Errorf("an artifact that there is none of: %d", status)
	}
}

// told is the newest fact about a device.
func told(w *legacytest.World, id string) string {
	w.T.Helper()
	p, err := w.People["olga"].Facts(w.T.Context(), fleet.FactQuery{Log: "events", Subject: id, Limit: 1})
	w.Must(err)
	for _, f := range p.Items {
		return fmt.Sprint(f.Kind, " ", *f.Index)
	}
	return "nothing"
}

func TestFeedbackThatIsNotAsItShouldBe(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	id, token := w.Admit(legacy.Admission{Name: "door-1"})
	other, second := w.Admit(legacy.Admission{Name: "door-2"})
	auth := "TargetToken " + token
	c, d := rhu{w, "door-1", auth}, rhu{w, "door-2", "TargetToken " + second}
	old := w.Publish("1.0.0", "bundle", []byte("old"))
	next := w.Publish("1.1.0", "bundle", []byte("bundle"), old)
	c.config("1.0.0")
	d.config("1.0.0")
	w.Roll("r1", next, id)
	w.Roll("r2", next, other)
	n, _, _, _, err := c.deployment(c.offered())
	w.Must(err)
	theirs, _, _, _, err := d.deployment(d.offered())
	w.Must(err)
	if n == theirs {
		t.Fatal("two devices have one action")
	}
	say := func(number, body string) int {
		t.Helper()
		status, _, _ := w.Call(http.MethodPost, "/"+legacytest.Tenant+"/controller/v1/door-1/deploymentBase/"+number+"/feedback", auth, body)
		return status
	}
	const closed = `"status":{"execution":"closed","result":{"finished":"failure"}`
	for _, x := range []struct {
		what, number, body string
		status             int
	}{
		{"of nobody's action", "4711", `{` + closed + `}}`, 404},
		{"of another's", theirs, `{` + closed + `}}`, 404},
		{"a number that is none", "x", `{` + closed + `}}`, 404},
		{"a number beyond", "2147483648", `{` + closed + `}}`, 404},
		{"the body of another action", n, `{"id":4711,` + closed + `}}`, 400},
		{"nothing", n, ``, 400},
		{"no JSON", n, `closed`, 400},
		{"an execution nobody knows", n, `{"status":{"execution":"exploded"}}`, 400},
		{"closed, nobody knows how", n, `{"status":{"execution":"closed"}}`, 400},
		{"progress of nothing", n, `{"id":` + n + `,"status":{"execution":"download","result":{"finished":"none","progress":{"cnt":0,"of":0}},"details":[]}}`, 200},
		{"progress again", n, `{"id":"` + n + `","status":{"execution":"downloaded","result":{"finished":"none"},"details":"one line"}}`, 200},
		{"a warning", n, `{"id":"","status":{"execution":"rejected","result":{"finished":"none"},"details":[null,3,"busy"]}}`, 200},
		{"too much", n, `{"x":"` + strings.Repeat("x", 1<<17) + `"}`, 413},
		{"an installer's words as they are", n, `{"id": ` + n + `, "time": "20260711T101522", "status": {"result": {"progress": {"cnt": 1, "of": 1}, "finished": "failure"}, "execution": "closed", "details": ["it said "no"` + "\n\t" + ` and \x went"]}}`, 200},
		{"the same again", n, `{` + closed + `}}`, 200},
		{"progress that was late", n, `{"status":{"execution":"proceeding","result":{"finished":"none"}}}`, 200},
		{"the contrary", n, `{"status":{"execution":"closed","result":{"finished":"success"}}}`, 410},
	} {
		if got := say(x.number, x.body); got != x.status {
			t.Errorf("%s: %d, want %d", x.what, got, x.status)
		}
	}
	if status, _, _ := w.Call(http.MethodGet, "/"+legacytest.Tenant+"/controller/v1/door-1/deploymentBase/"+n, auth, ""); status != http.StatusGone {
		t.Errorf("what has ended is offered: %d", status)
	}
	w.Rolled("r1", rollout.RolledBack)
	cs, err := w.People["olga"].DeviceCommands(t.Context(), id)
	w.Must(err)
	cs = slices.DeleteFunc(cs, func(c httpapi.Outcome) bool { return c.Act != wire.ActInstall }) // a trust bundle may be told beside it
	if len(cs) != 1 || cs[0].Standing != "failed" || !strings.Contains(cs[0].Text, `it said "no"`) {
		t.Errorf("the command reads %+v", cs)
	}
	for what, body := range map[string]string{
		"no data": `{"mode":"merge"}`, "no mode that is known": `{"mode":"shred","data":{"a":"b"}}`, "a long value": `{"data":{"a":"` + strings.Repeat("x", 300) + `"}}`, "no texts": `{"data":{"a":1}}`,
	} {
		if status, _, _ := w.Call(http.MethodPut, "/"+legacytest.Tenant+"/controller/v1/door-1/configData", auth, body); status != http.StatusBadRequest {
			t.Errorf("attributes with %s: %d", what, status)
		}
	}
}

func TestStrangersWaitForAPerson(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	ask := func(product, name, auth string) int {
		status, _, _ := w.Call(http.MethodGet, "/"+product+"/controller/v1/"+name, auth, "")
		return status
	}
	for _, name := range []string{"new-1", "new-2", "new-1"} {
		if status := ask(legacytest.Tenant, name, "TargetToken guess"); status != http.StatusUnauthorized {
			t.Fatalf("a stranger is answered %d", status)
		}
	}
	if status := ask("nothing", "new-3", ""); status != http.StatusUnauthorized {
		t.Fatalf("of no product: %d", status)
	}
	waiting, err := w.People["olga"].LegacyClients(t.Context(), legacytest.Tenant, legacy.Pending)
	w.Must(err)
	if len(waiting) != 2 || waiting[0].Name != "new-1" || waiting[0].Device != "" {
		t.Fatalf("there wait %+v", waiting)
	}
	if _, err := w.People["olga"].AdmitLegacyClient(t.Context(), legacytest.Tenant, legacy.Admission{Kind: legacy.DDI, Name: "new-1"}); err == nil {
		t.Fatal("somebody without the right let it in")
	}
	id, token := w.Admit(legacy.Admission{Name: "new-1"})
	if status := ask(legacytest.Tenant, "new-1", "TargetToken "+token); status != http.StatusOK {
		t.Fatalf("whom a person let in is answered %d", status)
	}
	again, next := w.Admit(legacy.Admission{Name: "new-1"})
	if again != id || ask(legacytest.Tenant, "new-1", "TargetToken "+token) != http.StatusUnauthorized || ask(legacytest.Tenant, "new-1", "TargetToken "+next) != http.StatusOK {
		t.Error("its first token counts after it got another")
	}
	if _, err := w.People["frank"].RefuseLegacyClient(t.Context(), legacytest.Tenant, client.ClientRefusal{Kind: legacy.DDI, Name: "new-1", Reason: "it was sold"}); err != nil {
		t.Fatal(err)
	}
	if status := ask(legacytest.Tenant, "new-1", "TargetToken "+next); status != http.StatusUnauthorized {
		t.Errorf("whom a person let in no more is answered %d", status)
	}
	g, err := w.People["frank"].AddLegacyGateway(t.Context(), legacytest.Tenant, "hall")
	w.Must(err)
	if status := ask(legacytest.Tenant, "new-2", "GatewayToken "+g.Token); status != http.StatusUnauthorized {
		t.Errorf("a gateway speaks for whom nobody let in: %d", status)
	}
	w.Admit(legacy.Admission{Name: "new-2"})
	if status := ask(legacytest.Tenant, "new-2", "GatewayToken "+g.Token); status != http.StatusOK {
		t.Errorf("a gateway speaks for its client: %d", status)
	}
	w.Must(w.People["frank"].EndLegacyGateway(t.Context(), legacytest.Tenant, "hall"))
	if status := ask(legacytest.Tenant, "new-2", "GatewayToken "+g.Token); status != http.StatusUnauthorized {
		t.Errorf("a gateway that was removed speaks: %d", status)
	}
}

func TestWhoeverHasADeviceAgrees(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	id, token := w.Admit(legacy.Admission{Name: "door-1", Consent: true})
	c := rhu{w, "door-1", "TargetToken " + token}
	base := "/" + legacytest.Tenant + "/controller/v1/door-1"
	next := w.Publish("1.1.0", "bundle", []byte("bundle"))
	third := w.Publish("1.2.0", "bundle", []byte("bundle 3"))
	c.config("1.0.0")
	w.Roll("r1", next, id)
	var href string
	w.Until("somebody is asked", func() (bool, string) { href = c.poll().Links["confirmationBase"].Href; return href != "", "" })
	if _, ok := c.poll().Links["deploymentBase"]; ok {
		t.Fatal("it is offered before anybody agreed")
	}
	path := c.path(href)
	n := path[strings.LastIndex(path, "/")+1:]
	if status, _, _ := w.Call(http.MethodGet, base+"/deploymentBase/"+n, c.auth, ""); status != http.StatusNotFound {
		t.Errorf("what nobody agreed to is given: %d", status)
	}
	status, body, _ := w.Call(http.MethodGet, path, c.auth, "")
	if status != http.StatusOK || !strings.Contains(string(body), `"confirmation":{"chunks"`) {
		t.Fatalf("what is to be agreed to: %d %s", status, body)
	}
	answer := func(body string) int {
		status, _, _ := w.Call(http.MethodPost, path+"/feedback", c.auth, body)
		return status
	}
	if status := answer(`{"confirmation":"perhaps"}`); status != http.StatusBadRequest {
		t.Errorf("perhaps: %d", status)
	}
	if status := answer(`{"confirmation":"denied","details":["not now"]}`); status != http.StatusOK || c.poll().Links["confirmationBase"].Href == "" {
		t.Errorf("who declined is not asked again: %d", status)
	}
	if status := answer(`{"confirmation":"confirmed"}`); status != http.StatusOK {
		t.Errorf("confirmed: %d", status)
	}
	c.installs(c.offered())
	c.config("1.1.0")
	w.Rolled("r1", rollout.Completed)
	if status, _, _ := w.Call(http.MethodPost, base+"/confirmationBase/activateAutoConfirm", c.auth, `{}`); status != http.StatusOK {
		t.Fatalf("to all of them: %d", status)
	}
	if _, body, _ := w.Call(http.MethodGet, base+"/confirmationBase", c.auth, ""); !strings.Contains(string(body), `"autoConfirm":{"active":true}`) {
		t.Errorf("%s", body)
	}
	w.Roll("r2", third, id)
	c.offered()
	if status, _, _ := w.Call(http.MethodPost, base+"/confirmationBase/deactivateAutoConfirm", c.auth, ``); status != http.StatusOK {
		t.Fatalf("no more: %d", status)
	}
	if _, ok := c.poll().Links["deploymentBase"]; ok {
		t.Error("it is offered though nobody agrees any more")
	}
}

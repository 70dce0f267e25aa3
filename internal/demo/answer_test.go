package demo

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// A server that is killed between the commit of a certificate and its answer, again and again while devices enrol, has given each of them one:
// they ask again with the same request, and get what was made for them before.
func TestKilledBetweenACertificateAndItsAnswer(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	const kills = 4
	d := plan(Options{Devices: 5, Out: io.Discard, programs: programs(t)})
	d.dir = t.TempDir()
	t.Cleanup(d.stopAll)
	fail := func(err error) {
		t.Helper()
		if err != nil {
			logs, _ := os.ReadFile(filepath.Join(d.dir, "server.log"))
			t.Fatalf("%v\n%s", err, logs[max(0, len(logs)-4000):])
		}
	}
	for _, chapter := range []func(context.Context) error{d.build, d.instance, d.firstRelease, d.produce} {
		fail(chapter(t.Context()))
	}
	d.serve.stop(os.Interrupt)
	t.Setenv("HALLMARK_FAILPOINTS", "est.before-answer=1")
	fail(d.startServer())
	died := make(chan error, 1)
	go func() { // started again as often as it dies, at last to live
		for n := range kills {
			l, _ := d.serve.now()
			<-l.done
			if n == kills-1 {
				_ = os.Unsetenv("HALLMARK_FAILPOINTS")
			}
			if err := d.startServer(); err != nil {
				died <- err
				return
			}
		}
		died <- nil
	}()
	fail(d.field(t.Context()))
	fail(<-died)
	x, err := d.breakIn(t.Context())
	fail(err)
	defer x.db.Close()
	for _, a := range d.agents {
		var facts, certs, enrolled int
		fail(x.db.Read().QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM entry WHERE subject = $1 AND kind = 'cert.issued'),
			(SELECT count(*) FROM entry WHERE subject = $1 AND kind = 'device.enrolled'), (SELECT count(*) FROM cert WHERE device = $1 AND role = 'ldevid')`, a.id).
			Scan(&facts, &enrolled, &certs))
		if facts != 1 || certs != 1 || enrolled != 1 {
			t.Errorf("device %s: %d facts of a certificate, %d of an enrolment, %d certificates", a.id, facts, enrolled, certs)
		}
	}
}

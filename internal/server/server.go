package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/genuine"
	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/cad"
	"github.com/hallmark-iot/hallmark/internal/deviceapi"
	"github.com/hallmark-iot/hallmark/internal/door"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/lines"
	"github.com/hallmark-iot/hallmark/internal/pace"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/throttle"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/ledger/devicelog"
	"github.com/hallmark-iot/hallmark/ledger/scitt"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/protect"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/parts"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Instance is a running Hallmark: all roles in one process.
type Instance struct {
	layout Layout
	cfg    Config
	log    *slog.Logger
	keys   Vault
	db     *store.DB
	logs   *logs
	guard  *access.Guard
	auth   authorities

	credentials *signin.Service
	proposals   *proposal.Service
	product     *product.Service
	pki         *pki.Service
	onboard     *onboard.Service
	ring        *keyring.Service
	directives  directives
	factory     *factory.Service
	blobs       *blob.Store
	device      *device.Service
	attest      *attest.Service
	monitor     *monitor.Service
	protect     *protect.Service
	release     *release.Service
	supply      *supply.Service
	parts       *parts.Service
	rollout     *rollout.Service
	pace        *pace.Pacer // of artifacts
	remedy      *remedy.Service
	retire      *retire.Service
	telemetry   *telemetry.Service
	devicelog   *devicelog.Service
	genuine     *genuine.Service
	fleet       *fleet.Service
	custody     *custody.Service
	receipts    *scitt.Service
	rekey       *rekey.Service
	foreign     *foreign.Service
	legacy      *legacy.Service
	comply      *comply.Service
	asks        *throttle.Asks // of strangers
	owner       *owner.Service
	lines       *lines.Registry
	cad         *cad.Client // the process that holds the CAs' keys; nil: they are in keys
	pulse       pulse
	events      *httpapi.Events // of the listener that Run opened
}

// Open opens the instance in a data directory. It refuses when signing on would contradict what was published.
func Open(ctx context.Context, l Layout, keys Vault, log *slog.Logger) (*Instance, error) {
	cfg, err := LoadConfig(l)
	if err != nil {
		return nil, err
	}
	db, err := openDatabase(ctx, l, cfg)
	if err != nil {
		return nil, err
	}
	vault, err := newSealer(keys)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	db.KeepPrivate(vault)
	i := &Instance{layout: l, cfg: cfg, log: log, keys: keys, db: db, asks: throttle.NewAsks(time.Now)}
	if cfg.CA != "" {
		i.cad = cad.Dial(cfg.caSocket())
	}
	for _, step := range []func(context.Context) error{i.openGround, i.openBirth, i.openField, i.openEnd} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return i, nil
}

// maxBehind is how far the clock may be behind what is on record, and stale how old the newest record may be without a word.
const (
	maxBehind = 5 * time.Minute
	stale     = 30 * 24 * time.Hour
)

// checkClock compares the clock with the newest fact. A clock that is behind would sign what has no place in time: nothing is begun.
// One that is far ahead may be right, if the instance was switched off; certificates run out by it, so it is said.
func (i *Instance) checkClock(ctx context.Context, now time.Time) error {
	newest, err := i.db.NewestFact(ctx)
	if err != nil || newest.IsZero() {
		return err
	}
	if behind := newest.Sub(now); behind > maxBehind {
		return fmt.Errorf("the clock says %s, and the newest fact of the ledger is of %s: set the clock (timedatectl), or restore the right data directory",
			now.UTC().Format(time.RFC3339), newest.UTC().Format(time.RFC3339))
	}
	if ahead := now.Sub(newest); ahead > stale {
		i.log.WarnContext(ctx, "the newest fact is old: if this instance was not switched off since, the clock is wrong", "clock", now.UTC(), "newest", newest.UTC())
	}
	return nil
}

// Close ends what Open began, after Run has returned.
func (i *Instance) Close() error { return i.db.Close() }

// openGround opens what is under all stages.
func (i *Instance) openGround(ctx context.Context) (err error) {
	if err := checkDatabase(ctx, i.db, i.cfg, i.keys); err != nil {
		return err
	}
	if err := i.checkClock(ctx, time.Now()); err != nil {
		return err
	}
	if i.guard, err = access.NewGuard(i.db); err != nil { // one for all stages: it counts what one person did alone
		return err
	}
	if err := i.openKeyring(ctx); err != nil {
		return err
	}
	if i.logs, err = openLogs(ctx, i.layout, i.cfg, i.db, i.keys, i.logKeys, i.log, nil); err != nil {
		return err
	}
	i.pulse.witnessed = i.logs.witnessed
	i.credentials = signin.New(i.db, i.guard)
	i.proposals = proposal.New(i.db, i.credentials, i.guard)
	i.fleet = fleet.NewService(i.db, i.db, i.guard)
	if err := i.openProofs(); err != nil {
		return err
	}
	i.product = product.New(i.guard, i.db, suiteIDs())
	i.auth, err = loadAuthorities(i.layout, i.caKeys()) //nolint:contextcheck // a CA's process is asked again at each signature, long after this
	return err
}

// openBirth opens the stages of a device's birth.
func (i *Instance) openBirth(ctx context.Context) (err error) {
	i.pki, err = pki.New(pki.Config{
		Guard: i.guard, Store: i.db.PKI(), Trust: i.auth.trust, Revocations: pki.NewRevocations(maxRevocationAge),
		Held: i.auth.held, Root: i.auth.root, Life: time.Duration(i.cfg.LDevID) * time.Hour,
		Lists: i.db.PKI(), CAs: i.db.PKI(), Targets: i.db.PKI(), NewKey: i.caKeys(), Instance: i.cfg.Instance, CRLBase: i.cfg.publicBase(), OCSP: i.askedForStatus(),
		Warn: func(text string, err error) { i.log.WarnContext(ctx, text, "error", err) },
	})
	if err != nil {
		return err
	}
	i.lines = lines.New(i.judgeLine)
	i.pki.Revocations().OnNew(i.lines.Revoked)
	if err := i.adoptCAs(ctx); err != nil {
		return err
	}
	if err := errors.Join(i.pki.LoadCAs(ctx), i.pki.Refresh(ctx)); err != nil {
		return err
	}
	enrolment := i.db.Onboard()
	if i.onboard, err = onboard.New(onboard.Config{
		Guard: i.guard, PKI: i.pki, Registry: enrolment, Store: enrolment,
		Planned: func(ctx context.Context, ca *x509.Certificate, id string) (bool, error) {
			return i.factory.Planned(ctx, ca, id)
		},
	}); err != nil {
		return err
	}
	order, err := i.newOrderSigner()
	if err != nil {
		return err
	}
	if err := errors.Join(i.openRekey(), i.openForeign(ctx), i.openLegacy()); err != nil {
		return err
	}
	vault, err := newSealer(i.keys)
	if err != nil {
		return err
	}
	if i.blobs, err = i.openBlobs(); err != nil {
		return err
	}
	i.factory, err = factory.New(factory.Config{
		OEM: i.cfg.OEM, Root: i.auth.root.Raw, OrderKey: order, Former: i.formerOrders, Beside: func() [][]byte { return i.besideOrders(order) }, CA: orderCA{i.pki}, Vault: vault, Store: i.db, Inspections: i.db, Books: i.db,
		Published: i.db.Desks(), Masters: i.db, Documents: i.blobs, SealKeys: sealKeys{i}, Intake: i.intake(), Guard: i.guard,
	})
	return err
}

// openField opens the stages of the field.
func (i *Instance) openField(ctx context.Context) (err error) {
	releases, devices := i.db.Releases(), i.db.Devices()
	if err := i.openSupply(); err != nil {
		return err
	}
	if err := i.openProtect(); err != nil {
		return err
	}
	if i.release, err = release.NewService(release.Config{
		Supply: i.supply, Store: releases, Artifacts: releases, Deltas: releases, Blobs: i.blobs, Protector: i.protect, Products: releases, Trust: devices, Ledger: i.logs.reader, Commands: recaller{i}, Guard: i.guard,
	}); err != nil {
		return err
	}
	if i.attest, err = attest.NewService(attest.Config{
		Store: i.db.Attest(), Guard: i.guard, References: releases, Policy: i.policyOf,
		Every: time.Duration(i.cfg.AttestS) * time.Second,
	}); err != nil {
		return err
	}
	if err := i.openGenuine(ctx); err != nil {
		return err
	}
	i.devicelog = devicelog.NewService(i.db, i.logs.reader, i.guard)
	if i.device, err = newDeviceService(i.db, i.guard, i.logs.reader, i.cfg, i.directives.all, i.release, challenger{i.attest, i.genuine}, i.attest, i.devicelog, willTell{i}); err != nil {
		return err
	}
	if i.monitor, err = monitor.NewService(monitor.Config{Store: i.db.Monitor(), Bundles: i.db.Monitor(), Guard: i.guard}); err != nil {
		return err
	}
	if i.rollout, err = rollout.NewService(rollout.Config{
		Store: i.db.Rollouts(), Releases: i.release, Devices: i.device, Ledger: i.logs.reader, Guard: i.guard,
		Contact: max(15*time.Minute, 5*i.cfg.poll()), Alarms: calls{i},
	}); err != nil {
		return err
	}
	i.pace = pace.New(i.paceOf)
	if i.remedy, err = remedy.NewService(remedy.Config{Store: i.db.Remedies(), Devices: i.device, Guard: i.guard}); err != nil {
		return err
	}
	access, err := newKeyAccess(i.keys, i.ring.Names(keyring.Bucket))
	if err != nil {
		return err
	}
	i.telemetry = telemetry.NewService(telemetry.Config{Store: i.db, Keys: access, Guard: i.guard})
	return nil
}

// openEnd opens the stage of a device's end, and what is over all stages.
func (i *Instance) openEnd(context.Context) (err error) {
	devices := i.db.Devices()
	i.retire, err = retire.NewService(retire.Config{
		Store: i.db.Retirements(), Devices: i.device, Warrants: devices, Revoker: i.pki, Keys: i.telemetry,
		Ledger: i.logs.reader, Guard: i.guard,
	})
	if err != nil {
		return err
	}
	if i.owner, err = i.openOwners(); err != nil {
		return err
	}
	i.comply, err = comply.NewService(comply.Config{Guard: i.guard, Store: i.db.Comply()})
	return err
}

func (i *Instance) openOwners() (*owner.Service, error) {
	owners := i.db.Owners()
	return owner.NewService(owner.Config{
		Store: owners, Codes: owners, Transfers: owners, Returns: owners, Marks: owners, Warrants: owners, Devices: i.device, Certificates: i.pki,
		Ledger: i.logs.reader, Guard: i.guard,
	})
}

// maxRevocationAge is how old the list of revocations may be before nobody is let in by it.
const maxRevocationAge = time.Minute

// Run serves until ctx ends; ready is called with the addresses once both listeners are open.
func (i *Instance) Run(ctx context.Context, ready func(api, devices string)) error {
	if n := len(i.cfg.localWitnesses()); n >= i.cfg.Quorum && !i.cfg.Virtual {
		i.log.WarnContext(ctx, "the witnesses in this process alone make a quorum: whoever takes this server takes them too; have others witness its logs "+
			"(docs/guide/witness.md)", "near", n, "quorum", i.cfg.Quorum)
	}
	certificate := &ownCertificate{inst: i, now: time.Now}
	if _, err := certificate.get(nil); err != nil {
		return err
	}
	api, err := i.listenAPI(ctx, certificate)
	if err != nil {
		return err
	}
	dev, err := listen(ctx, i.cfg.Devices)
	if err != nil {
		return errors.Join(err, api.Close())
	}
	public, err := i.listenPublic(ctx)
	if err != nil {
		return errors.Join(err, api.Close(), dev.Close())
	}
	opened := append(public, api, dev)
	other, others, err := i.listenLegacy(ctx, certificate)
	if other != nil {
		opened = append(opened, other)
	}
	var handler http.Handler
	if err == nil {
		handler, err = i.apiHandler(api.Addr())
	}
	if err != nil {
		for _, l := range opened {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	i.logs.run(ctx, g)
	i.runLoops(ctx, g)
	people := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10, ErrorLog: quiet(i.log),
	}
	for _, l := range public {
		serve(ctx, g, l, &http.Server{
			Handler: i.public(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10, ErrorLog: quiet(i.log),
		})
	}
	people.RegisterOnShutdown(i.events.Close) // streams do not end by themselves
	serve(ctx, g, api, people)
	before := door.New(dev, i.deviceTLS(certificate), door.Limits{})
	devices := before.Server(i.deviceHandler(), i.lines.ConnState)
	devices.ErrorLog, devices.ConnContext = quiet(i.log), deviceapi.ConnContext
	serve(ctx, g, before, devices)
	if other != nil {
		serve(ctx, g, other, others)
	}
	if ready != nil {
		ready(i.cfg.scheme()+"://"+api.Addr().String(), "https://"+dev.Addr().String())
	}
	return errors.Join(g.Wait(), i.settle(context.WithoutCancel(ctx)))
}

// settle leaves an orderly end behind once nobody writes any more: last contacts are stored, and what was acknowledged is in the
// published files. After a disorderly one the next start does it.
func (i *Instance) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return errors.Join(i.device.Flush(ctx), i.release.Flush(ctx), i.logs.settle(ctx))
}

// quiet sends a server's complaints about its clients to the debug log: anybody can cause them.
func quiet(log *slog.Logger) *logAdapter { return slog.NewLogLogger(log.Handler(), slog.LevelDebug) }

func listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; stop what holds the port, or choose another in config.json", address, err)
	}
	return l, nil
}

func serve(ctx context.Context, g *errgroup.Group, l net.Listener, s *http.Server) {
	g.Go(func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(stop); err != nil {
			return s.Close()
		}
		return nil
	})
}

// loopback reports whether only this machine can reach the console: then it is plain HTTP, which browsers hold for safe there.
func (c Config) loopback() bool {
	host, _, err := net.SplitHostPort(c.API)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// consoleHost is where people reach the console: by its first DNS name, because passkeys belong to names.
func (c Config) consoleHost() string {
	_, port, err := net.SplitHostPort(c.API)
	if err != nil {
		return c.API
	}
	for _, name := range c.Names {
		if net.ParseIP(name) == nil {
			return net.JoinHostPort(name, port)
		}
	}
	return c.API
}

func (c Config) scheme() string {
	if c.loopback() {
		return "http"
	}
	return "https"
}

func (i *Instance) listenAPI(ctx context.Context, certificate *ownCertificate) (net.Listener, error) {
	l, err := listen(ctx, i.cfg.API)
	if err != nil || i.cfg.loopback() {
		return l, err
	}
	// A machine may show a certificate. No CA is asked: whose key it is, is looked up at each request, also on resumed connections.
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: certificate.get, ClientAuth: tls.RequestClientCert}), nil
}

// deviceTLS is for devices. Who shows no certificate gets what is for everybody (/cacerts, /csrattrs, the history of trust bundles), and
// nothing else: each other call asks whose connection it is.
func (i *Instance) deviceTLS(certificate *ownCertificate) *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS12,
		CipherSuites:     door.Suites(),
		GetCertificate:   certificate.get,
		ClientAuth:       tls.RequestClientCert,
		VerifyConnection: pki.VerifyConnection(i.auth.trust, i.pki.Revocations(), time.Now),
	}
}

// identify names the device of a chain that VerifyConnection let in. It looks at the revocations again, because a connection may be
// older than the newest of them.
func (i *Instance) identify(chain []*x509.Certificate) (deviceapi.Peer, error) {
	return identify(i.auth.trust, i.pki.Revocations(), chain, time.Now())
}

func identify(trust *pki.Trust, revoked *pki.Revocations, chain []*x509.Certificate, now time.Time) (deviceapi.Peer, error) {
	d, err := trust.VerifyDevice(chain, now)
	if err != nil {
		return deviceapi.Peer{}, err
	}
	p := deviceapi.Peer{Device: d.Identity.DeviceID, Operational: d.Identity.Kind == idevid.LDevID}
	if err := revoked.Check(d.Cert, p.Device, now); fault.KindOf(err) != fault.Denied { // it is not revoked, or nobody can tell
		return p, err
	}
	p.Ended = true
	return p, revoked.CheckConnection(d.Cert, p.Device, now)
}

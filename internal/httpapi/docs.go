package httpapi

import (
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access/proposal"
)

// tagFor names the group of operations a path belongs to.
func tagFor(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if name, ok := map[string]string{
		"audit": "members", "oem": "orders", "facts": "log", "me": "members", "tokens": "members", "bundles": "trust", "ceremonies": "trust", "keys": "trust", "warrants": "trust", "issuers": "certificates", "foreign-cas": "trust", "components": "releases", "advisories": "releases", "chips": "orders", "chip-vendors": "orders", "desks": "orders", "masters": "orders", "registrations": "orders", "vouchers": "enrolments", "revocations": "certificates", "transfers": "owners", "claim-codes": "owners", "suppliers": "parts", "lots": "parts",
	}[first]; ok {
		return name
	}
	return first
}

var tagTexts = []*huma.Tag{
	{Name: "fleet", Description: "The fleet at a glance."},
	{Name: "devices", Description: "Single devices: what they are, what happened to them, what people say of them."},
	{Name: "commands", Description: "Acts over devices. A command is a resource: creating it returns at once, and what becomes of it on each device is read from it."},
	{Name: "groups", Description: "Parts of a product's fleet, as paths: pump's eu/berlin. Callers are limited to products, or to groups of them."},
	{Name: "owners", Description: "Whom devices belong to once they have left the maker: claims, transfers, lineage."},
	{Name: "recalls", Description: "Devices that are called back, for everybody to see."},
	{Name: "findings", Description: "What is wrong and not yet dealt with."},
	{Name: "remedies", Description: "Cases of devices in trouble: quarantined, made anew, released."},
	{Name: "retirements", Description: "The end of devices: warrant, wipe, receipt, disposal and the proof of it."},
	{Name: "releases", Description: "What may run: proposed, approved offline, published, withdrawn."},
	{Name: "rollouts", Description: "Who gets it when. A rollout is a resource that goes on by itself, wave by wave."},
	{Name: "products", Description: "What the maker makes."},
	{Name: "orders", Description: "What factories are to make, and what they made."},
	{Name: "parts", Description: "What devices are built of: who supplies it, in which lots it came, and which devices may have a part of a lot."},
	{Name: "enrolments", Description: "Requests of devices that take a person before they get an identity, and vouchers for those that lost their keys."},
	{Name: "trust", Description: "Trust bundles, offline warrants, key ceremonies and the instance's online keys."},
	{Name: "certificates", Description: "Certificates and their revocation."},
	{Name: "streams", Description: "Sealed data of devices, and who may read it."},
	{Name: "proposals", Description: "Four eyes. What one person may not do alone is denied as access.four-eyes. Ask again with Hallmark-Propose: and the reason, and it becomes a proposal (202); another person who may do it approves, and the proposer has it done with run."},
	{Name: "members", Description: "Who may call, and with what."},
	{Name: "compliance", Description: "How products stand by laws and standards: what is measured, and what people state."},
	{Name: "log", Description: "The ledger: facts, with their proofs."},
	{Name: "genuine", Description: "What anybody may ask, without a token: is this device genuine? Each address may ask a little."},
	{Name: "events", Description: "Facts as they are placed in the ledger."},
}

// errorsOf lists the statuses of problems an operation may answer with.
func errorsOf(method string) []int {
	errs := []int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity,
		http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
	}
	if method != http.MethodGet {
		errs = append(errs, http.StatusRequestTimeout, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	return errs
}

// descriptions say what a summary has no room for.
var descriptions = map[string]string{
	"list-devices":           "In order of the ID. Callers who are limited see what is in their scope.",
	"list-groups":            "Each counts the devices in the groups below it. A group exists while it has devices.",
	"group-devices":          "All or none. One needs the right to it where the devices are, and where they go to. A device is in at most one group, and with it in those above: who is limited to eu acts on eu/berlin.",
	"list-owners":            "An owner's members see their own.",
	"create-owner":           "Its members are made with create-token: they see and command what the owner has, and nothing else.",
	"create-claim-codes":     "Each is 100 random bits with check digits, is kept as a hash, and claims one device once. Codes that were made before are void. They are shown this once.",
	"claim-device":           "Whatever is wrong about device and code is one refusal, claim.refused; wrong codes are counted by caller and by device. With a key, the device itself is told whom it belongs to, and from then on lets go by a warrant of that key or of the product's warrant keys alone; without one the owner is bound on this server only. 503 claim.transfer while the device has still to let go of its last owner.",
	"get-ownership":          "The maker sees to whom the device belonged; an owner sees that of its own periods, and of others that they were.",
	"transfer-devices":       "All or none. When it answers, the owner is shut out, pending commands are withdrawn, and what is stored of the devices' sealed data is destroyed for good: who wants to keep it reads it before (see dry-run-transfer). The devices are told when they come; until each has said that it let go, nobody can claim it. 409 while a device is in a rollout of its owner. rehome: the devices go to the instance that the offer is of, for good; it always takes two people, and warrants for the act rehome; each keeps its certificate until it has said that it goes, and its life here ends then.",
	"list-transfers":         "For the maker's people.",
	"give-up-handover":       "As long as the device has not been told to go, or has refused: 409 rehome.told otherwise, because it may have gone. Its time with its owner goes on; sealed data and settings that the beginning destroyed do not come back.",
	"mark-stolen":            "By its owner, or the maker. The device gets no certificate any more, cannot be claimed or handed on, and is kept in quarantine while it can be told.",
	"create-recall":          "At most 20,000 devices at once. Product, reason, remedy and day are public for ever.",
	"list-facts":             "Only facts that have their place in the log, which they get some 50 ms after they happened.",
	"get-fact":               "Every answer of a changing operation names in Hallmark-Facts what it wrote. 503 while the fact has no place, or no witnessed checkpoint covers it: ask again in a second.",
	"get-entry":              "The entry's bytes and the path from its hash to the root of a checkpoint that enough witnesses have cosigned: it can be checked without trusting this server.",
	"get-custody":            "The entries of both logs that tell of the device and of what those rest on, each log's under one witnessed checkpoint: `hallmark log verify --bundle` checks it with the keys you bring, and no server. For who may read the whole product: orders, rollouts and warrants name other devices. 503 while what it rests on is not witnessed yet.",
	"get-verdict":            "Without a token. A headline, what is said beside it with its dates, and the same signed: `hallmark verify` checks it with the fingerprint of the maker's root alone. It speaks about the ID; that a piece is the one with it only the piece can prove: see ask-device. It holds no owner, place, person, order or station. An ID that nobody knows is unknown, and not an error.",
	"get-signed-verdict":     "Without a token. COSE_Sign1 with x5chain (RFC 9360); the payload is deterministic CBOR, see docs/design/identity.md.",
	"ask-device":             "Without a token. The device attests at its next check-in over a hash of the nonce; what it answers comes with a verdict, and is checked with the nonce. 409 when it is not reachable, 503 when it was asked often enough: a device answers strangers a few times a day.",
	"get-question":           "Without a token.",
	"get-receipt":            "COSE_Sign1 by the log's key over the root of a published and witnessed tree, with the path from the entry to it. The format has no place for cosignatures: who has only a receipt believes the log's key alone. The entry itself is get-fact's.",
	"create-command":         "Routine acts (attest, configure) and guarded ones (quarantine, dormant, reset), which the device itself ends after ttl_s. Fatal acts take an offline warrant: see retirements. Code comes by a rollout, of one device too; to make devices anew (reprovision) with anything but what each ran in good health takes two people. The command is signed, logged and stored when this returns; devices hear of it when they next ask.",
	"dry-run-command":        "Changes nothing, and takes no second person.",
	"cancel-command":         "A device that was told already may still act.",
	"submit-warrant":         "Signed offline by the threshold of the product's warrant keys, over just these devices.",
	"submit-ceremony":        "Signed by all who had a key at it, among them enough approvers of a product here. A rehearsal's is refused.",
	"list-ceremonies":        "By the digest of the transcript. They are public: people are in them by their labels.",
	"get-product-readiness":  "A product can be ordered and updated when nothing is missing.",
	"request-product":        "Makes the key of the product's CA, and drafts its first trust bundle. Asked again before the answer has come, it gives the same file.",
	"activate-product":       "The answer is held against the request. It may be called again: whoever may not publish a trust bundle leaves that to one who may.",
	"get-bundle-status":      "Counts of the devices in the field, by the version of the trust bundle they last said to have.",
	"list-keys":              "Those that are retired too. Needed says how many devices in the field believe no other key of the role.",
	"rotate-key":             "The new key counts for a device once its trust bundle names it: publish one that does. A directive key is used at once, the others from the next start of the server on.",
	"retire-key":             "Refused while devices believe no other key of the role, unless forced. A directive key is out of use at once, the others from the next start of the server on.",
	"publish-bundle":         "Signed by the threshold of its own root and of the current one's. Devices in the field are told to take it.",
	"import-records":         "The file a station exported. It is read in one go and answered when every record has its standing: a file is bounded, and the same file again changes nothing.",
	"create-order":           "The file is made while you wait. It is given out this once: keep it, or order again.",
	"take-master":            "Who may place orders gives it. An approver of the trust bundle in force must have signed it, its release must be published here, and it must be sealed to this instance. What follows its head in the file is not looked at: firmware comes from the release. Documents that came with the release are kept already.",
	"give-master-document":   "The body is the document, at most 64 MiB. Only what has the digest that the master's approver signed for is stored.",
	"get-master-document":    "As it was given, verified. It is to be saved: nobody here wrote it.",
	"cancel-order":           "For a file that was lost, or is not wanted. Only while no record of the order is here; one that comes later is an alarm.",
	"abandon-order":          "For a station that is gone. What is on record stays; whatever else it made never becomes a device, and a record that comes later is an alarm.",
	"list-order-differences": "Each row says what it is, why, and what to do; of two records that contradict each other both are told. An alarm is a record that is authentic and cannot be true: clone, over-production and refused are parts of that list. Who is unregistered came with a certificate by the order's CA and is on no record: it gets no certificate from here, and waits while an open order's ticket gives its serial, or is refused.",
	"close-order":            "Only when as many devices were made as the records say; the order's CA can sign nothing more.",
	"set-supply-policy":      "Its mode is off, warn (what is wrong is written down, and the release goes on) or enforce (there is no such release). To change it where it is enforced takes two people. Devices of such a product have to run an agent that knows of decisions. A change is a fact.",
	"list-approvers":         "While no key is anybody's, approvals have to be of different people, with different keys, and nothing says which.",
	"bind-approver":          "It always takes two people. From the first on, an approval counts only when its key is its sender's own.",
	"unbind-approver":        "It always takes two people. Approvals by the key count no more, also of releases that are not published yet. Devices believe it until a trust bundle leaves it out.",
	"take-exception":         "OpenVEX or CycloneDX, signed by a key of vex_keys in the product's policy. A statement that matches no advisory, or names a component that no advisory of that name is about, refuses the whole document. It is a fact.",
	"set-isolation":          "Evidence in which one of these layers does not hold all of a device's programs, or that does not tell, is contraindicated from then on; so a device whose kernel lacks one goes into quarantine. Look at what devices say before: get-device tells it. A change is a fact.",
	"set-bundle-due":         "A device that is heard of and is behind for longer raises the finding trust-bundle.behind, which ends by itself when it has caught up. One that is not heard of is a finding of its own. A change is a fact.",
	"get-issuer-lists":       "Of a CA whose key is here, the lists it has to publish; of another, those that it has published. A list that is missing or has run out is stale: who checks it trusts nothing, or everything.",
	"set-enrolment":          "It holds from the device's next request on. In mode approved a person lets in each request made with a factory identity; renewals go on by themselves. A change is a fact.",
	"set-schema":             "Releases that are proposed from now on have it, signed; what devices run keeps its own until they are updated. Devices and server refuse settings that do not fit. A change is a fact.",
	"list-enrolments":        "A device has one: another request takes its place. Each lapses a week after it was made or decided on.",
	"approve-enrolment":      "The device gets its certificate when it asks again with the same request. 409 when it asks with another one by now.",
	"refuse-enrolment":       "The device is told so when it asks again, and may ask with another request.",
	"close-finding":          "A trouble that still shows opens a new finding.",
	"approve-remedy":         "A case is held when more devices were quarantined within the hour than the policy lets happen without a person.",
	"dismiss-remedy":         "The reason is kept beside the ledger, which has a salted hash of it.",
	"reprovision-remedy":     "Also again, after the attempts without a person have failed. With a release that did not run on it in good health before it takes two people.",
	"retire-devices":         "All or none. A device acts on it only with the warrant, which names just these devices.",
	"write-off-device":       "For devices that are lost, destroyed or without power for good. Their identities are revoked all the same, and the proof of disposal says that nobody saw them wiped.",
	"start-rollout":          "Selects the devices and lets the first wave go. 409 when a device is in another rollout. It takes two people where more than 100 devices would be told before it is seen whether any of them is good, with those that the caller acted on within the hour: see takes_two of dry-run-rollout.",
	"halt-rollout":           "Who has the release is sent back to what the release allows; who has no way back is counted as stranded.",
	"shut-rollout":           "Waves that began, or are to come, go on; it completes when the last of them has passed. 409 for one that devices do not join.",
	"abort-rollout":          "Nobody is sent back.",
	"set-rollout-bandwidth":  "Both limits are as given: 0, or a member that is not there, is no limit. It holds from the next request of each device on. 409 for a rollout that has ended.",
	"dry-run-rollout":        "Changes nothing.",
	"find-release-path":      "A path has as few steps as can be, and of those as few bytes. A rollout takes a device over it when it is made with stepping_stones; otherwise it takes who needs one step only. Where there is none, the answer says why.",
	"upload-artifact":        "The bytes go to the blob store as they come and are named by their SHA-256; the same bytes again change nothing. An Idempotency-Key is neither needed nor kept.",
	"list-artifacts":         "In the order of the digests. One that no release names was uploaded, and never proposed: prune-artifacts deletes it. Deltas are not in it: see list-deltas.",
	"prune-artifacts":        "Deleted is what was uploaded to the product and neither a release of whatever status names nor a lot's certificate or a master; and deltas to what is not published any more, or from what no device runs: make-deltas makes them again. What somebody put within the last older_s stays. It takes two people where that is less than 30 days and artifacts of others than the caller are among them. One fact for each 400 names what was deleted; the bytes leave their place within seconds, unless another product has the same. A release that is proposed at the same moment names what is there, or is refused.",
	"list-deltas":            "Deltas are made when a release is published, of the three releases before it and of those that at least one device in a hundred runs; see make-deltas for others. They are compared with the component before they are kept, and devices are told of those that are at most 0.7 of its size.",
	"make-deltas":            "They are made one after another, beside all else: see list-deltas for what becomes of them. What is there already stands, and what failed is tried again.",
	"close-release":          "It is withdrawn, and commands that bring it and were not carried out are cancelled. Devices are held to it by the next trust bundle, whose 'install' has to be the release's security counter and one: the root keys' holders sign that. Devices that run it go on. Done again, it completes what broke off.",
	"withdraw-release":       "Running rollouts of it halt, and commands that bring it and were not carried out are cancelled. Devices that run it go on. Done again, it completes what broke off.",
	"bind-identity":          "Nobody becomes a member by it. Bound by email, the first sign-in with it, verified by the provider, pins the subject; afterwards the email means nothing.",
	"bind-certificate":       "No CA is asked: the SHA-256 of the public key is pinned, until the certificate expires, its credential is revoked or the machine ends. Needs a console with TLS to be used.",
	"list-decisions":         "Denials only. What was allowed and changed something is in the ledger, with its caller; what was allowed and only read is kept nowhere.",
	"end-member":             "The name stays taken.",
	"set-member-roles":       "It holds for every token and session of theirs at once. Nobody changes their own.",
	"approve-proposal":       "Whoever approves is a person, not the proposer, and might do it himself if he had a second. It does not do it yet: see run-proposal.",
	"refuse-proposal":        "By its proposer: withdraws it.",
	"run-proposal":           "It is done once: again, for 24 hours, gives the same answer. One that fails may be tried again until it lapses, seven days after it was made.",
	"create-token":           "The secret is in this answer only: it is not kept with an Idempotency-Key either, and a repeated request is told so.",
	"read-stream":            "The decision is in the ledger, allowed or denied, before a key is opened. What comes back opens for the reader's key alone.",
	"revoke-grant":           "What was read with it has been read.",
	"move-device":            "What happens to a device otherwise comes from its evidence, from commands or from its retirement.",
	"forget-device":          "Its settings, group, sealed data, and all that people and programs said of it in words; the ledger keeps salted hashes of the latter, and verifies as before. Only for a device that is decommissioned or disposed of. Backups have it until they are destroyed. It cannot be undone.",
	"trust-foreign-ca":       "It always takes two people. The CA is believed for the factory identities of that product and for nothing else; its devices have to be on a list (import-devices) unless any is set.",
	"end-foreign-ca":         "It takes one person. Devices that enrolled already keep their operational certificates until those run out: revoke those of which there is doubt.",
	"admit-legacy-client":    "Registers the client's device, which from then on only says what it runs: lists and rollouts show it so. It gets a token, told once, unless a key is given. A client of Mender's always has a key: that of its requests to be let in.",
	"list-legacy-logs":       "The last three, for 30 days. It is the client's word. Clients of hawkBit's protocol say why in their feedback: it is in the device's commands.",
	"refuse-legacy-client":   "Its token and key count no more. Its device stays in the registry: retire it there.",
	"add-legacy-gateway":     "Whoever has the token is every client of the product that has no key of its own: give clients tokens of their own where you can.",
	"welcome-device":         "Registers what the chain shows without a gap, and nothing else: how the device was made, and its keys. It keeps its ID, and enrols with its factory identity when it comes; the CAs of the other instance are believed for nothing. Devices that got new keys in the field are refused.",
	"set-supplier":           "It takes two people when the supplier was ended, or gets a name more and a policy that is enforced allows it: what its gate lets through is not taken back.",
	"end-supplier":           "It takes one person. It gets no new parts and lots, and the gates of policies that allow it by its ID allow it no more. What was built in stays.",
	"set-part":               "Whose it is, and whether it is hardware, stays.",
	"receive-lot":            "Of hardware. Software is found by its bill of materials: find-component.",
	"certify-lot":            "At most 16 MiB, of any kind. Its SHA-256 is in the fact lot.certified. Another one than is here takes two people.",
	"recall-lot":             "One finding of the kind lot.recalled says how many devices may have a part of it, and how to list them. Its devices are told nothing: see create-recall.",
	"list-lot-devices":       "All devices of the orders that name the lot. An order that names several lots of one part does not say which of its devices has which. Callers who are limited see what is in their scope.",
	"name-order-lots":        "When the order is created (create-order), while it runs or afterwards. A lot that was recalled can be named too: what was built in was built in, and then it is told.",
	"take-order-lot":         "Its devices are found by the lot no more: that is why it takes two.",
	"trust-chip-vendor":      "It always takes two people. Certificates that were there before are replaced. A certificate that has run out still serves for chips that were provisioned in its time.",
	"get-desk-file":          "It is public, and safe to mail; its fingerprint is compared by another way. It needs a key of role desk: see rotate-key.",
	"add-desk":               "It always takes two people. A root that is believed here must have signed the desk's CAs. A desk that is there, with the same order key, gets the CAs and the quota that are given.",
	"remove-desk":            "It takes one person. Orders of the desk that are here stay. One that was made since is refused; one that says that it was made before takes two people to register, because that is the desk's word alone.",
	"register-order":         "The body has the registration that the desk wrote beside the order's file. The same again changes nothing, and it may come late: records of an order that is not here are refused. It is refused when it is not of a desk that is here, by its keys and CAs; for another product, OEM or instance; when what it puts on devices was never published here; beyond the desk's quota; and when the desk was removed before it was made.",
	"end-chip-vendor":        "It takes one person. Chips that are known stay known, and orders that demand them go on.",
	"import-chips":           "The body is the manifest: a JSON array of JWS in flattened JSON (RFC 7515 section 7.2.2), ES256 or ES384, one for each chip, at most a million of 64 KiB. The payload has uniqueId, provisioningTimestamp, model, partNumber, groupId and publicKeySet (RFC 7517; keys on P-256 count). Entries that are not taken are told by their number, the others are imported. An import that broke off is begun again.",
	"import-devices":         "The body is the list: csv with a header of name, hardware, certificate (base64 of its DER), key_sha256, sha256, sha1; aws and azure with one JSON document a line. At most a million lines of 64 KiB. Lines that are not taken are told by their number, the others are imported. An import that broke off is begun again.",
	"create-voucher":         "It always takes two people. The secret is in this answer only, and is not kept with an Idempotency-Key; when the answer is lost, ask for another voucher, which ends this one. The voucher is for this device and its chip, is used once, and is locked by too many wrong tries. Vouchers are rationed: by device, by who agrees and by product within a day.",
	"revoke-voucher":         "It takes one person.",
	"list-device-keys":       "Whoever still presents one of them is refused, and a finding says so.",
	"judge-device":           "A second axis beside the state. The reason is kept beside the ledger, which has a salted hash of it.",
	"replace-device":         "Both are of one product, and neither has another successor or predecessor.",
	"revoke-device":          "The factory's identity too: it can never enrol again. Not to be undone.",
	"revoke-issuer":          "For a station's key that was stolen. The product, operational and infrastructure CAs carry the whole fleet; they are replaced by a key ceremony, not by a call.",
	"request-issuer":         "The key is made where the instance's keys are; nothing signs with it before the holders of the OEM's root have answered.",
	"install-issuer":         "The chain is verified up to a root that is believed, and held against the request. The authority before it signs its lists until nothing of it is valid.",
	"trust-root":             "It takes two people. Devices believe roots by their trust bundle.",
	"request-issuer-list":    "Of a root, whose key is offline; the other authorities' lists are signed by the instance.",
	"put-issuer-list":        "It must be newer than the one before, and may not leave out what is revoked.",
	"revoke-many":            "All or none are known; those that were revoked before are passed over, so that it can be repeated. Of more than a hundred devices it takes two people. Each is a fact of its own.",
	"revoke-certificate":     "The device may enrol for another one. It is named by its issuer's key ID and its serial number, as in list-device-certificates.",
	"list-revocations":       "The whole list, as the listeners check it.",
	"list-controls":          "What is measured is counted at most once a minute, and every 20 times as long as it takes; as_of says when. A control is met only by fresh evidence and, where a person has a part in it, by a statement that is not past its review: what is missing, old or not measured is unknown.",
	"report-compliance":      "The controls of list-controls in one document, to be kept.",
	"get-control":            "The ETag is of the statement that is on file: there is one before the first.",
	"state-control":          "It takes the place of the one on file; the ledger keeps both. Mandatory controls without a condition can be neither left out nor found not applicable.",
	"stream-events":          "Server-sent events, of both logs: `id` says where in both logs the stream is, `event` is fact, `data` is an Event. A client that comes back with Last-Event-ID is told what it missed; when that is too much it gets `event: reset` and should read again what it shows. Callers who are limited are told of facts about what is in their scope only. A comment comes every 15 s. A client that does not keep up is disconnected.",
}

// document adds what the registration of operations cannot say: keys, tags and examples.
func document(h huma.API) {
	o := h.OpenAPI()
	o.Info.Description = strings.TrimSpace(`
Problems are RFC 9457 documents; ` + "`type`" + ` is stable: urn:hallmark:fault:<code>.

**Lists** come in pages: give ` + "`next`" + ` of one as ` + "`after`" + ` for the next; the last has none.

**Repeating safely**: give a changing request an ` + "`Idempotency-Key`" + `. Of all requests with one key one is done; the others get its answer,
with ` + "`Idempotency-Replayed: true`" + `, for 24 hours. A request that wrote nothing is not remembered.

**Changing what you saw**: what has a revision comes with an ` + "`ETag`" + `; give it as ` + "`If-Match`" + ` and get 412 if it has changed since.

**Proof**: ` + "`Hallmark-Facts`" + ` of an answer names the facts that became durable before it was given: see get-fact.

**Long operations** are resources: a command, a rollout, a case and a retirement are created at once and read until they have ended.
Making an order's file and importing records are synchronous; both are bounded.`)
	o.Tags = tagTexts
	for _, s := range o.Components.Schemas.Map() {
		for _, p := range s.Properties {
			if p.ContentEncoding == "base64" {
				p.Nullable = true // as JSON has it of bytes that are not there
			}
		}
	}
	kept := o.Components.Schemas.Schema(reflect.TypeFor[proposal.Proposal](), true, "Proposal")
	for _, item := range o.Paths {
		for _, op := range []*huma.Operation{item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			stranger := op.Tags[0] == "genuine" // has no keys of his own, and proposes nothing
			least, most := 1, 255
			if !stranger {
				op.Parameters = append(op.Parameters, &huma.Param{
					Name: headerKey, In: "header", Description: "a name of your own for this operation, for repeating it safely",
					Schema: &huma.Schema{Type: "string", MinLength: &least, MaxLength: &most, Pattern: `^[ -~]+$`},
				})
			}
			if !stranger && op.OperationID != "upload-artifact" && op.Tags[0] != "proposals" {
				proposable(op, kept)
			}
			if ex, ok := Examples[op.OperationID]; ok && op.RequestBody != nil && op.RequestBody.Content["application/json"] != nil {
				op.RequestBody.Content["application/json"].Example = ex
			}
		}
	}
}

// proposable says that an operation can be proposed, and what it answers then.
func proposable(op *huma.Operation, proposal *huma.Schema) {
	most := 512
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: HeaderPropose, In: "header", Description: "why; if this takes a second person it becomes a proposal", Schema: &huma.Schema{Type: "string", MaxLength: &most},
	})
	op.Responses[strconv.Itoa(http.StatusAccepted)] = &huma.Response{
		Description: "It takes a second person, and waits for one as a proposal", Content: map[string]*huma.MediaType{"application/json": {Schema: proposal}},
	}
}

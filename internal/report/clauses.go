package report

// A clause says what of a requirement the bundle shows, and what it does not.
type clause struct{ name, asks, shows, not string }

// clauses returns the map. It is an aid for whoever assesses, not an assessment.
func clauses() []clause {
	return []clause{
		{"PCI DSS 4.0.1, 10.2.1", "Audit logs are active", "starts, stops, recoveries, heartbeats and the longest silence", "connections that do not pass through the proxy, and the logs of other components"},
		{"PCI DSS 4.0.1, 10.2.1.1", "Individual access to cardholder data", "how many statements each user ran on each relation; of a statement the log itself has user, address, time and number of rows", "which rows were read, who stands behind a shared account, and what runs inside functions"},
		{"PCI DSS 4.0.1, 10.2.1.2", "Actions with administrative access", "the number of statements by user, the lists of ROLE and DDL statements", "actions on the server's machine without a connection; which users are administrators is for you to say"},
		{"PCI DSS 4.0.1, 10.2.1.3", "Access to audit logs", "who read the log over HTTP, and, in the history of the configuration, who was allowed to", "who read its files on the disk, or copies in other systems"},
		{"PCI DSS 4.0.1, 10.2.1.4", "Invalid access attempts", "failed logins, refusals, the number of statements that failed with 42501", "attempts that did not reach the proxy"},
		{"PCI DSS 4.0.1, 10.2.1.5", "Changes to credentials and privileges", "the list of ROLE statements", "changes outside of SQL, and those inside functions"},
		{"PCI DSS 4.0.1, 10.2.1.6", "Starting, stopping and pausing of logs", "starts, stops, starts without a stop, gaps", "-"},
		{"PCI DSS 4.0.1, 10.2.1.7", "Creation and deletion of objects", "the list of DDL statements", "objects made inside functions"},
		{"PCI DSS 4.0.1, 10.2.2", "Details of each event", "user, time, origin and result of what is listed; the log itself has them of all, with proofs", "the identity of data below relations"},
		{"PCI DSS 4.0.1, 10.3.2 and 10.3.4", "Logs protected from change, and change detected", "the signed checkpoint, the verification, and, if an earlier checkpoint was given, the proof that the log only grew since", "that nobody could destroy the log; changes after the last checkpoint that somebody else keeps, if the signing key was stolen"},
		{"PCI DSS 4.0.1, 10.3.3", "Logs backed up promptly", "cosignatures, if there are any", "copies of the log and what sinks sent"},
		{"PCI DSS 4.0.1, 10.4", "Logs reviewed", "material for a review", "that somebody reviewed it"},
		{"PCI DSS 4.0.1, 10.5.1", "History kept for 12 months", "the first entry that is still there, prunes, holds", "that what was pruned is archived"},
		{"PCI DSS 4.0.1, 10.6", "Clocks synchronised", "entries whose time went back", "that the clock was right"},
		{"PCI DSS 4.0.1, 10.7", "Failures of logging detected and answered", "gaps, recoveries, starts without a stop", "who was told, and what was done"},
		{"HIPAA 164.312(b)", "Activity recorded and examined", "activity by user, database and class, logins", "activity outside of the database; that it was examined"},
		{"HIPAA 164.312(c)(1), (2)", "Data protected from improper alteration", "that the record of alterations is itself unaltered, as far as the section on completeness says; the number of statements that write", "the integrity of the data in the database"},
		{"SOC 2, CC6.1 to CC6.3", "Access is restricted, granted and removed", "logins, refusals, ROLE statements", "whether a grant was approved"},
		{"SOC 2, CC7.2 and CC7.3", "Anomalies are watched for and evaluated", "failures, refusals, gaps, silence", "alerts and how they were handled"},
		{"ISO/IEC 27001:2022, A.8.15", "Logs produced, kept, protected and analysed", "what is logged, since when, the protection by tree and checkpoint, and by witnesses if there are any", "that logs are analysed, and how long they have to be kept"},
		{"GDPR, Article 5(1)(f) and 5(2)", "Integrity, confidentiality, accountability", "who accessed which relations how often, erasures, the protection of the record", "whether access was lawful; the log itself holds personal data"},
		{"GDPR, Article 30", "Records of processing", "users, databases and relations that were in use", "purposes, categories and recipients"},
		{"GDPR, Article 32", "Security of processing", "logins, refusals, the ability to detect changes", "encryption, resilience, and testing"},
	}
}

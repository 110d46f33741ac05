/* Deliberately empty: bcc asks for it, the classifier does not. */

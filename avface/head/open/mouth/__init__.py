"""The mouth of the open head: lips, jaw, teeth, cavity and tongue."""
